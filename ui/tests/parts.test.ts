import { cleanup, configure, fireEvent, render, screen } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { live } from "../src/lib/live.svelte";
import { route } from "../src/lib/route.svelte";
import { session } from "../src/lib/session.svelte";
import { toasts } from "../src/lib/toasts.svelte";
import SignIn from "../src/pages/SignIn.svelte";
import Vms from "../src/pages/Vms.svelte";
import { operation, vm } from "./fixtures";

/** What the API would answer, by method and path; what was asked for is kept. */
function api(answers: Record<string, unknown>) {
  const asked: string[] = [];
  vi.stubGlobal("fetch", async (path: string, init: RequestInit = {}) => {
    const what = `${init.method ?? "GET"} ${path.split("?")[0]}`;
    asked.push(`${init.method ?? "GET"} ${path}`);
    const answer = answers[what];
    if (what === "GET /v1/watch") return new Response(new ReadableStream());
    if (answer === undefined) {
      const problem = { code: "not-found", detail: `no ${what}` };
      return new Response(JSON.stringify(problem), { status: 404 });
    }
    return new Response(JSON.stringify(answer));
  });
  return asked;
}

const page = (items: unknown[]) => ({ items, revision: 7, next_page: null });

beforeEach(() => {
  // jsdom lays nothing out.
  vi.stubGlobal("ResizeObserver", class {
    observe() {}
    unobserve() {}
    disconnect() {}
  });
});

// Machines that build at the same time are slow.
configure({ asyncUtilTimeout: 20_000 });

afterEach(() => {
  cleanup();
  route.go("/vms");
  live.stop();
  session.now = null;
  toasts.shown = [];
  vi.unstubAllGlobals();
});

describe("signing in", () => {
  it("tells of a token that is not known, and keeps no token itself", async () => {
    vi.stubGlobal("fetch", async () => new Response('{"code":"unauthorized","detail":"x"}', { status: 401 }));
    render(SignIn);
    await fireEvent.input(screen.getByLabelText("Token"), { target: { value: "trine_x" } });
    await fireEvent.click(screen.getByRole("button", { name: "Sign in" }));
    expect((await screen.findByRole("alert")).textContent).toContain("not known");
    expect(session.now ?? null).toBeNull();
    expect(JSON.stringify(localStorage)).not.toContain("trine_x");
  });
});

describe("the list of VMs", () => {
  const many = Array.from({ length: 1000 }, (_, at) => vm(`vm-${at}`, at % 2 ? "stopped" : "running"));

  async function list(answers: Record<string, unknown> = {}) {
    const asked = api({
      "GET /v1/vms": page(many),
      "GET /v1/operations": page([]),
      "GET /v1/projects": page([]),
      "GET /v1/disks": page([]),
      "GET /v1/snapshots": page([]),
      "GET /v1/networks": page([]),
      "GET /v1/security-groups": page([]),
      "GET /v1/scale-sets": page([]),
      ...answers,
    });
    session.now = { who: "token:ann", role: "operator", rights: { everywhere: "operator" } };
    live.start();
    render(Vms);
    await screen.findByText("vm-0");
    return asked;
  }

  it("has rows only for what is seen of a thousand", async () => {
    await list();
    expect(screen.getByRole("grid").getAttribute("aria-rowcount")).toBe("1001");
    expect(screen.getAllByRole("row").length).toBeLessThan(60);
  });

  it("watches from the revision after the list's, and reads the list once", async () => {
    const asked = await list();
    await vi.waitFor(() => expect(asked).toContain("GET /v1/watch?from=8"), 20_000);
    expect(asked.filter((one) => one.startsWith("GET /v1/vms")).length).toBe(1);
  });

  it("shows what the filter finds", async () => {
    await list();
    await fireEvent.input(screen.getByLabelText("Filter VMs"), { target: { value: "vm-77" } });
    const names = screen.getAllByRole("row").slice(1).map((row) => row.querySelector("a")?.textContent);
    expect(names).toEqual(["vm-77", "vm-770", "vm-771", "vm-772", "vm-773", "vm-774", "vm-775", "vm-776", "vm-777", "vm-778", "vm-779"]);
  });

  it("starts those of the selected that are off, and tells of refusals", async () => {
    const [first, second] = [many[1], many[3]];
    if (!first || !second) throw new Error("no VMs");
    const asked = await list({ [`POST /v1/vms/${first.id}/start`]: operation(first) });
    for (const one of [first, second]) await fireEvent.click(screen.getByLabelText(`Select ${one.name}`));
    await fireEvent.click(screen.getByRole("button", { name: "Start" }));
    await vi.waitFor(() => expect(toasts.shown.length).toBe(1), 20_000);
    expect(asked.filter((one) => one.startsWith("POST")).length).toBe(2);
    expect(toasts.shown[0]?.title).toBe("Could not start 1 of 2 VMs");
    expect(live.operations.map((one) => one.target.name)).toEqual([first.name]);
  });
});
