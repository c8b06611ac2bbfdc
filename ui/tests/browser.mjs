// The UI in a real Chromium: with a real daemon and a VM that boots, and with a thousand VMs that are none.
//
// `cargo xtask test` starts it. By hand it wants TRINE_BIN (a folder with the programs), and TRINE_KERNEL and
// TRINE_INITRD (a kernel, and an initial RAM disk with a shell at the serial port).
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

import { mock } from "./mock.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** For a machine that builds at the same time, and for an engine in software. */
const PATIENCE = 120_000;
const QUIET_MS = 6000;
const SIZES = [
  { width: 1280, height: 800 },
  { width: 390, height: 844 },
];

const say = (text) => console.log(`ui: ${text}`);

/** A page that remembers what it asked for and what it complained of. */
async function openPage(browser, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, bypassCSP: false, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const asked = [];
  const complaints = [];
  page.on("request", (request) => asked.push(`${request.method()} ${new URL(request.url()).pathname}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  return { context, page, asked, complaints };
}

/** What axe finds that is serious. Our pages let no script in, so it is brought by the debugger. */
async function axe(page, where) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const result = await window.axe.run(document, { resultTypes: ["violations"] });
    return result.violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes.map((n) => n.html.slice(0, 160)) }));
  });
  const serious = found.filter((one) => one.impact === "serious" || one.impact === "critical");
  assert.deepEqual(serious, [], `axe finds in ${where}: ${JSON.stringify(serious, null, 1)}`);
}

/** Nothing is asked for while nothing happens. */
async function quiet(page, asked, where) {
  // What came with the page may still come.
  await page.waitForTimeout(1000);
  const before = asked.length;
  await page.waitForTimeout(QUIET_MS);
  assert.deepEqual(asked.slice(before), [], `${where} polls`);
}

/** A step that is not to keep anybody waiting: a second, and on a machine that is busy with other things some more. */
const SOON_MS = 1000;
async function soon(what, step) {
  const begin = Date.now();
  await step();
  const took = Date.now() - begin;
  say(`${what}: ${took} ms`);
  assert.ok(took < 10 * SOON_MS, `${what} took ${took} ms`);
}

async function daemon() {
  const { TRINE_BIN, TRINE_KERNEL, TRINE_INITRD } = process.env;
  assert.ok(TRINE_BIN && TRINE_KERNEL && TRINE_INITRD, "say where the programs and a guest are (TRINE_BIN, TRINE_KERNEL, TRINE_INITRD)");
  const home = mkdtempSync(join(tmpdir(), "trine-ui-"));
  const socket = join(home, "sock");
  const child = spawn(join(TRINE_BIN, "trined"), ["--home", home, "--socket", socket, "--listen", "127.0.0.1:0"], { stdio: ["ignore", "ignore", "pipe"] });
  const trine = (...words) =>
    execFileSync(join(TRINE_BIN, "trine"), words, { env: { ...process.env, TRINE_SOCKET: socket }, encoding: "utf8" });
  let log = "";
  const url = await new Promise((found, failed) => {
    child.on("exit", () => failed(new Error(`trined ended: ${log}`)));
    createInterface(child.stderr).on("line", (line) => {
      log += `${line}\n`;
      const match = /open (https:\S+) in a browser/.exec(line);
      if (match) found(match[1].replace(/\/$/, ""));
    });
  });
  const stop = () => {
    try {
      const left = trine("ls", "-o", "name").split("\n").filter(Boolean);
      if (left.length > 0) trine("rm", "--force", ...left);
    } finally {
      child.removeAllListeners("exit");
      child.kill();
      rmSync(home, { recursive: true, force: true });
    }
  };
  return { url, trine, stop, kernel: TRINE_KERNEL, initrd: TRINE_INITRD };
}

/** As a new user: from the token to a VM that was seen to boot, and is gone again. */
async function journey(browser) {
  const { url, trine, stop, kernel, initrd } = await daemon();
  try {
    const secret = trine("token", "create", "ann", "--role", "admin").trim().split("\n").pop().trim();
    const { page, asked, complaints, context } = await openPage(browser, { viewport: SIZES[0] });
    const phase = (word) => page.locator("header .phase", { hasText: word }).waitFor();

    // Asked for as a deep link, it is there after signing in.
    await page.goto(`${url}/vms`);
    await page.getByLabel("Token").fill("trine_wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    await axe(page, "the sign-in page");
    // Chromium itself notes refused requests.
    const refusals = complaints.splice(0).filter((one) => !one.includes("401"));
    assert.deepEqual(refusals, []);
    await page.getByLabel("Token").fill(secret);
    await page.keyboard.press("Enter");
    await page.getByText("No VMs yet").waitFor();
    const cookies = await context.cookies();
    assert.deepEqual(cookies.map((one) => [one.name, one.httpOnly, one.secure, one.sameSite]), [["__Host-trine", true, true, "Strict"]]);
    assert.equal(await page.evaluate((secret) => JSON.stringify({ ...localStorage }).includes(secret) || document.cookie, secret), "");
    say("signed in");

    await page.getByRole("link", { name: "New VM" }).click();
    await page.getByLabel("Name", { exact: true }).fill("web-1");
    await page.getByRole("button", { name: "Kernel of the host" }).click();
    await page.getByLabel("Kernel", { exact: true }).fill(kernel);
    await page.getByLabel("Initial RAM disk").fill(initrd);
    await page.getByLabel("Command line").fill("console=ttyS0 quiet panic=-1");
    await page.getByRole("button", { name: "Small" }).click();
    await page.getByLabel("CPUs it can grow to").fill("2");
    await page.getByLabel("Memory it can grow to").fill("1.25 GiB");
    await axe(page, "the page of a new VM");
    await page.getByRole("button", { name: "Create", exact: true }).click();
    await page.waitForURL("**/vms/default/web-1/console");

    // It boots, and what is typed is done.
    const screen = page.locator(".xterm-rows");
    const shows = (text) => page.waitForFunction((text) => document.querySelector(".xterm-rows")?.textContent?.includes(text), text);
    await phase("running");
    await shows("#");
    await page.locator(".xterm").click();
    await page.keyboard.type("echo trine-$((40+2))\n");
    await shows("trine-42");
    assert.ok((await screen.count()) === 1);
    await axe(page, "the console");
    say("a VM was seen to boot, and typed at");

    await page.getByRole("tab", { name: "Screen" }).click();
    const canvas = page.locator(".display canvas");
    await canvas.waitFor();
    await page.waitForFunction(() => (document.querySelector(".display canvas")?.width ?? 0) >= 640);
    await axe(page, "the screen");
    say("its screen was seen");

    await page.getByRole("tab", { name: "Summary" }).click();
    await page.waitForFunction(() => document.querySelectorAll("figure path.line").length === 4);
    await axe(page, "a VM's summary");
    await quiet(page, asked, "a VM's summary");

    // It grows while it runs: what that means is said before, and its guest is told.
    const typed = async (command, told) => {
      await page.getByRole("tab", { name: "Console" }).click();
      await page.locator(".xterm").click();
      await page.keyboard.type(`${command}\n`);
      await shows(told);
    };
    await soon("the settings", async () => {
      await page.getByRole("tab", { name: "Settings" }).click();
      await page.getByLabel("CPUs", { exact: true }).fill("2");
      await page.getByLabel("Memory", { exact: true }).fill("1.25 GiB");
      await page.getByText("2 CPUs: at once.").waitFor();
    });
    await axe(page, "a VM's settings, changed");
    await soon("a resize", async () => {
      await page.getByRole("button", { name: "Save 2 changes" }).click();
      await page.getByText("Settings of web-1 saved").waitFor();
      await page.getByRole("tab", { name: "Events" }).click();
      await page.locator(".operation .done").getByText("done").first().waitFor({ state: "attached" });
    });
    const online = "until [ -e /sys/devices/system/cpu/cpu1/online ]; do sleep 0.1; done; echo 1 > /sys/devices/system/cpu/cpu1/online";
    await typed(`${online}; echo cpus-$(nproc)`, "cpus-2");
    say("it was resized while it ran");

    // A disk: made, attached, its snapshot taken.
    await page.getByRole("tab", { name: "Disks" }).click();
    await page.getByText("This VM has no disk").waitFor();
    await soon("a new disk", async () => {
      await page.goto(`${url}/disks?new=1`);
      await page.getByLabel("Name", { exact: true }).fill("data");
      await page.getByLabel("Size", { exact: true }).fill("64M");
      await page.keyboard.press("Enter");
      await page.getByRole("cell", { name: "ready" }).waitFor();
    });
    await axe(page, "the disks");
    await page.goto(`${url}/vms/default/web-1/disks`);
    await page.getByRole("button", { name: "Attach a disk" }).click();
    await page.locator("dialog select").selectOption("data");
    await axe(page, "the question which disk");
    await soon("attaching it", async () => {
      await page.getByRole("button", { name: "Attach", exact: true }).click();
      await page.getByRole("region", { name: "Disks of this VM" }).getByText("data").waitFor();
    });
    await page.getByRole("tab", { name: "Snapshots" }).click();
    await page.getByRole("button", { name: "Take a snapshot" }).click();
    await page.getByLabel("Name", { exact: true }).fill("before");
    await soon("a snapshot", async () => {
      await page.getByRole("button", { name: "Take it" }).click();
      await page.getByRole("cell", { name: "ready" }).waitFor();
    });
    await axe(page, "a VM's snapshots");
    await quiet(page, asked, "a VM's snapshots");
    await page.getByRole("tab", { name: "Network" }).click();
    await page.getByText("A network of its own").waitFor();
    await axe(page, "a VM's network");
    say("a disk was attached, and a snapshot taken");

    // A group with a rule, by the keyboard.
    await page.goto(`${url}/security-groups?new=1`);
    await page.getByLabel("Name", { exact: true }).fill("web");
    await page.keyboard.press("Enter");
    await page.waitForURL("**/security-groups/default/web");
    await page.getByRole("button", { name: "Add a rule: What its VMs are sent" }).press("Enter");
    await page.getByRole("button", { name: "SSH" }).press("Enter");
    await page.getByRole("button", { name: "Add", exact: true }).press("Enter");
    await page.getByText("TCP 22").waitFor();
    await axe(page, "a security group");
    // A network is asked for; whether this host can make it, its state says.
    await page.goto(`${url}/networks?new=1`);
    await page.getByLabel("Name", { exact: true }).fill("lan");
    await page.keyboard.press("Enter");
    await page.waitForURL("**/networks/default/lan");
    await page.getByText("No VM is on it yet").waitFor();
    await axe(page, "a network");
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.getByText("No networks yet").waitFor();
    // A file becomes an image, and goes again.
    await page.goto(`${url}/images?new=1`);
    await page.getByLabel("File").setInputFiles({ name: "Small.raw", mimeType: "application/octet-stream", buffer: Buffer.alloc(1 << 20, 7) });
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("button", { name: "small", exact: true }).waitFor();
    await axe(page, "the images");
    await page.getByRole("button", { name: "Actions for small" }).click();
    await page.getByRole("menuitem", { name: "Delete" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.getByText("No images yet").waitFor();
    say("a group, a network and an image were made");

    await page.goto(`${url}/vms/default/web-1/settings`);
    await page.getByLabel("Labels").fill("env=test");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Settings of web-1 saved").waitFor();
    await axe(page, "a VM's settings");

    for (const [path, what] of [["/", "Overview"], ["/vms", "web-1"], ["/disks", "data"], ["/snapshots", "before"], ["/networks", "Networks"], ["/security-groups", "web"], ["/scale-sets", "Scale sets"], ["/images", "Images"], ["/host", "Trine"], ["/operations", "Operations"], ["/audit", "POST /v1/vms"], ["/tokens", "ann"]]) {
      await page.goto(url + path);
      await page.locator("main").getByText(what).first().waitFor();
      await axe(page, path);
    }
    await page.goto(`${url}/vms`);
    await page.getByText("env=test").waitFor();
    await quiet(page, asked, "the list of VMs");

    // By the keyboard alone: found, and ended.
    await page.keyboard.press("Control+k");
    await page.keyboard.type("web-1");
    await page.getByRole("option", { name: /^web-1/ }).waitFor();
    await page.keyboard.press("Enter");
    await page.waitForURL("**/vms/default/web-1");
    await page.getByRole("button", { name: "Actions for web-1" }).click();
    await page.getByRole("menuitem", { name: "Force off" }).click();
    await phase("stopped");
    await page.getByRole("tab", { name: "Snapshots" }).click();
    await page.getByRole("button", { name: "Actions for before" }).click();
    await page.getByRole("menuitem", { name: "Revert" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Revert" }).click();
    await page.goto(`${url}/operations`);
    await page.locator(".operation", { hasText: "Revert snapshot before" }).locator(".done").waitFor();
    await page.goto(`${url}/vms/default/web-1`);
    await page.getByRole("button", { name: "Actions for web-1" }).click();
    await page.getByRole("menuitem", { name: "Delete" }).click();
    await axe(page, "the question before deleting");
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByText("No VMs yet").waitFor();
    assert.equal(trine("ls", "-o", "name"), "");
    say("it was stopped and deleted");

    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Token").waitFor();
    assert.deepEqual(await context.cookies(), []);
    assert.deepEqual(complaints, []);
    await context.close();
  } finally {
    stop();
  }
}

/** A thousand VMs: what is seen of them is there soon, and so is what changes. */
async function thousand(browser) {
  const server = await mock(1000);
  try {
    for (const [at, viewport] of SIZES.entries()) {
      const colorScheme = at ? "dark" : "light";
      const { page, asked, complaints, context } = await openPage(browser, { viewport, colorScheme });
      await page.goto(`${server.url}/`);
      await page.locator("main .sum").first().waitFor();
      const opened = await page.evaluate(async () => {
        const begin = performance.now();
        const link = [...document.querySelectorAll('a[href="/vms"]')].at(-1);
        link.click();
        while (document.querySelectorAll("[data-at]").length < 5) await new Promise(requestAnimationFrame);
        return performance.now() - begin;
      });
      assert.equal(await page.getByRole("grid").getAttribute("aria-rowcount"), "1001");
      await axe(page, `a thousand VMs at ${viewport.width}`);

      // What changes is seen, without being asked for.
      const vm = [...server.vms.values()].find((one) => one.name === "build-1");
      const times = [];
      for (let turn = 0; turn < 40; turn++) {
        const word = turn % 2 ? "running" : "paused";
        const seen = page.waitForFunction(
          (word) => document.querySelector('[data-at="0"] .phase')?.textContent?.includes(word) && Date.now(),
          word,
          { polling: "raf" },
        );
        const begin = Date.now();
        server.change(vm, word);
        times.push((await (await seen).jsonValue()) - begin);
      }
      times.sort((a, b) => a - b);
      const slowest = times.at(-1);
      say(`${viewport.width} px: the list in ${opened.toFixed(0)} ms, a change in ${times[20]} ms (slowest of 40: ${slowest} ms)`);
      // Ten times the goals: this machine may be busy with other things.
      assert.ok(opened < 3000 && slowest < 2000);

      await quiet(page, asked, "a thousand VMs");
      assert.equal(asked.filter((one) => one === "GET /v1/vms").length, 1);

      // By the keyboard to the last, and back.
      await page.keyboard.press("/");
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("End");
      await page.locator('[data-at="999"]:focus').waitFor();
      await page.keyboard.press("Home");
      await page.locator('[data-at="0"]:focus').waitFor();
      for (const path of ["/", "/vms/default/web-1", "/vms/default/web-1/disks", "/vms/default/web-1/network", "/vms/default/web-1/snapshots", "/vms/default/web-1/settings", "/vms/new", "/disks", "/snapshots", "/networks", "/networks/default/lan", "/security-groups", "/security-groups/default/web", "/scale-sets", "/images", "/host", "/operations", "/audit", "/tokens", "/nowhere"]) {
        await page.goto(server.url + path);
        await page.locator("main h1, main h2").first().waitFor();
        await axe(page, `${path} at ${viewport.width}, ${colorScheme}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${path} is ${wide} px too wide at ${viewport.width}`);
      }
      assert.deepEqual(complaints, []);
      await context.close();
    }
  } finally {
    server.stop();
  }
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
try {
  const parts = { thousand, journey };
  const wanted = process.argv.slice(2);
  for (const [name, part] of Object.entries(parts)) {
    if (wanted.length === 0 || wanted.includes(name)) await part(browser);
  }
  say("all is well");
} finally {
  await browser.close();
}
