// A daemon of a thousand VMs, for the browser's tests: its answers are of the API's shape, its VMs are none.
import { readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const WEB = process.env["TRINE_WEB"] ?? fileURLToPath(new URL("../dist/web", import.meta.url));
const KINDS = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const PHASES = ["running", "running", "running", "stopped", "running", "paused", "stopped", "failed"];
const ROLES = ["web", "db", "cache", "worker", "build"];
const NEXT = { start: "running", stop: "stopped", pause: "paused", resume: "running", restart: "running" };

const id = (kind, at) => `${kind}0000000-0000-4000-8000-${String(at).padStart(12, "0")}`;

function vmOf(at) {
  const role = ROLES[at % ROLES.length];
  const phase = PHASES[(at * 7) % PHASES.length];
  const isUp = phase === "running" || phase === "paused";
  return {
    id: id("a", at),
    name: `${role}-${Math.floor(at / ROLES.length) + 1}`,
    project: "default",
    created: new Date(Date.now() - at * 3_600_000).toISOString(),
    spec: {
      power: isUp ? "on" : "off",
      boot: 1,
      cpus: [1, 2, 4, 8][at % 4],
      memory_bytes: [1, 2, 4, 16][at % 4] * 2 ** 30,
      engine: "auto",
      image: ["debian-12", "ubuntu-24.04", "alpine"][at % 3],
      boot_from: { firmware: at % 2 ? "uefi" : "bios" },
      network: at % 5 ? "outbound" : { user: [{ host_port: 2200 + (at % 800), guest_port: 22, protocol: "tcp" }] },
      on_end: "restart-on-failure",
      protected: at % 11 === 0,
      stop_limit_s: 60,
      labels: at % 3 ? { env: at % 2 ? "prod" : "test" } : {},
    },
    status: {
      phase,
      boot: 1,
      failures: phase === "failed" ? 3 : 0,
      ...(phase === "failed" ? { reason: "the guest ended by itself 3 times in a row: its kernel panicked" } : {}),
      ...(isUp ? { engine: at % 2 ? "hw" : "full", engine_reason: "the best this host has", pid: 4000 + at, cage: { holds: ["no capabilities", "files: only those that are open", "system calls: 61"], lacks: at % 2 ? [] : ["limits of memory, CPU and threads: this host has no control groups of version 2"] } } : {}),
      ...(phase === "stopped" ? { last_end: { boot: 1, is_orderly: true, how: "the guest powered off", ran_s: 99 } } : {}),
    },
  };
}

const meta = (kind, at, name) => ({ id: id(kind, at), name, project: "default", created: new Date(Date.now() - at * 7_200_000).toISOString() });

/** What VMs are on and have: disks of the first, snapshots of those, networks and who reaches whom. */
function around(vms) {
  const named = (at) => [...vms.values()][at];
  const disk = (at, name, gib, vm, source) => ({
    ...meta("e", at, name),
    spec: { pool: at % 3 ? "default" : "fast", size_bytes: gib * 2 ** 30, ...(vm ? { vm } : {}), ...(source ? { source: { image: { name: source, id: "sha256:3f" } } } : {}) },
    status: { phase: at === 5 ? "preparing" : "ready", ...(at === 5 ? { percent: 42 } : {}), size_bytes: gib * 2 ** 30, used_bytes: gib * 2 ** 27, reverts: 0, ...(vm ? { vm } : {}) },
  });
  const first = named(0);
  const disks = [disk(0, "web-1", 20, first.name, "debian-12"), disk(1, "data", 200, first.name), disk(2, "db-1", 40, "db-1", "debian-12"), disk(3, "scratch", 64), disk(4, "old-backup", 100), disk(5, "imported", 8)];
  first.spec.disks = ["web-1", "data"];
  const snapshot = (at, name, vm, disks, consistency) => ({ ...meta("f", at, name), spec: { vm, disks, disk_ids: [id("e", at)] }, status: { phase: "ready", consistency, size_bytes: 20 * 2 ** 30 } });
  const snapshots = [snapshot(0, "before-upgrade", first.name, ["web-1", "data"], "filesystem"), snapshot(1, "monday", first.name, ["web-1"], "crash"), snapshot(2, "fresh", "db-1", ["db-1"], "stopped")];
  const network = (at, name, ipv4, status) => ({ ...meta("1", at, name), spec: { ipv4, ipv6: `fd42:7c3:91ab:${at}::/64`, nat: at === 0 }, status: { phase: "ready", bridge: `trb-${at}`, domain: `${name}.internal`, cards: at === 0 ? 2 : 0, ...status } });
  const networks = [network(0, "lan", "10.77.3.0/24", {}), network(1, "backend", "10.77.4.0/24", { phase: "failed", reason: "dnsmasq is missing: install the package dnsmasq-base" })];
  for (const at of [0, 1]) {
    const vm = named(at);
    vm.spec.networks = [{ network: "lan", model: "virtio", security_groups: ["default", "web"], ports: [{ protocol: "tcp", host_port: 8080 + at, guest_port: 80 }] }];
    vm.status.networks = [{ network: "lan", network_id: id("1", 0), interface: `trt-${at}`, mac: `02:74:72:00:00:0${at + 1}`, ipv4: `10.77.3.1${at}`, ipv6: `fd42:7c3:91ab::1${at}` }];
  }
  const group = (at, name, rules, cards) => ({ ...meta("2", at, name), spec: { rules }, status: { cards } });
  const out = { direction: "out", protocol: "any", peer: "anybody" };
  const groups = [
    group(0, "default", [out, { direction: "in", protocol: "any", peer: { group: "default" } }], 2),
    group(1, "web", [out, { direction: "in", protocol: "tcp", ports: "80", peer: "anybody" }, { direction: "in", protocol: "tcp", ports: "22", peer: { cidr: "192.0.2.0/24" } }, { direction: "in", protocol: "icmp", peer: "anybody" }], 2),
  ];
  Object.assign(first.spec, { cpus_max: 8, memory_max_bytes: 8 * 2 ** 30 });
  Object.assign(first.status, { cpus: 1, memory_bytes: 2 * 2 ** 30, cpus_max: 8, memory_max_bytes: 8 * 2 ** 30 });
  const set = (at, name, spec, status) => ({ ...meta("3", at, name), spec: { template: { image: "debian-12" }, replace_at_once: 1, ...spec }, status });
  const sets = [
    set(0, "web", { size: 3, autoscale: { min: 2, max: 10, cpu_percent: 60, cool_down_s: 300 } }, { phase: "ready", wanted: 3, vms: 3, running: 3, current: 3, cpu_percent: 54 }),
    set(1, "worker", { size: 2 }, { phase: "failed", reason: "there is no image 'debian-12'", wanted: 2, vms: 0, running: 0, current: 0 }),
  ];
  return { disks, snapshots, networks, "security-groups": groups, "scale-sets": sets };
}

/** Starts it; `change` changes a VM as the world would. */
export async function mock(count) {
  const vms = new Map(Array.from({ length: count }, (_, at) => [id("a", at), vmOf(at)]));
  const operations = new Map();
  const things = around(vms);
  const watchers = new Set();
  const asked = [];
  let revision = 1000;
  let made = 0;

  const tell = (kind, key, object) => {
    revision += 1;
    const text = `id: ${revision}\ndata: ${JSON.stringify({ revision, kind, id: key, object })}\n\n`;
    for (const watcher of watchers) watcher.write(text);
  };
  const change = (vm, phase) => {
    vm.status = { ...vm.status, phase };
    tell("vm", vm.id, vm);
  };
  const begin = (vm, verb) => {
    const operation = {
      id: id("b", made++),
      verb,
      target: { kind: "vm", id: vm.id, name: vm.name, project: vm.project },
      boot: 1,
      requestor: { who: "token:ann", request: "r" },
      state: "running",
      phase: vm.status.phase,
      percent: 40,
      can_cancel: verb === "start",
      created: new Date().toISOString(),
    };
    operations.set(operation.id, operation);
    tell("operation", operation.id, operation);
    setTimeout(() => {
      if (verb === "delete") {
        vms.delete(vm.id);
        tell("vm", vm.id, null);
      } else change(vm, NEXT[verb]);
      Object.assign(operation, { state: "done", percent: 100, finished: new Date().toISOString() });
      tell("operation", operation.id, operation);
    }, 300);
    return operation;
  };
  for (const [at, verb] of ["start", "stop", "restart", "start", "delete"].entries()) {
    const operation = { ...begin(vms.get(id("a", at)) ?? [...vms.values()][0], "start"), verb };
    operations.set(operation.id, { ...operation, state: at === 2 ? "failed" : "done", percent: 100, finished: operation.created, ...(at === 2 ? { error: { code: "start-failed", message: "no host has so much memory: 16 GiB are asked for" } } : {}) });
  }

  const json = (response, body, status = 200) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };
  const stream = (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(": hello\n\n");
  };
  const page = (items) => ({ items, revision, next_page: null });
  let cpu = 0;

  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://mock");
    asked.push(`${request.method} ${request.url}`);
    const path = url.pathname;
    const parts = path.split("/").slice(2);
    if (!path.startsWith("/v1/")) return file(path, response);
    if (path === "/v1/session") return json(response, { who: "token:ann", role: "admin", rights: { everywhere: "admin" }, expires: null });
    if (path === "/v1/watch") {
      stream(response);
      watchers.add(response);
      return response.on("close", () => watchers.delete(response));
    }
    if (path === "/v1/vms" && request.method === "GET") return json(response, page([...vms.values()]));
    if (path === "/v1/operations") return json(response, page([...operations.values()].reverse()));
    if (path === "/v1/projects") return json(response, page([{ id: id("c", 0), name: "default", created: "2026-01-01T00:00:00Z", quota: {}, status: { used: {} } }]));
    if (path === "/v1/images") {
      const image = (name, gib, source) => ({ name, id: `sha256:${"3f".repeat(32)}`, size_bytes: gib * 2 ** 30, used_bytes: gib * 2 ** 28, created: "2026-11-20T10:00:00Z", source });
      return json(response, page([image("alpine", 1, "alpine.qcow2"), image("debian-12", 3, "Debian 12's packages"), image("ubuntu-24.04", 4, "noble-server-cloudimg-amd64.img")]));
    }
    if (path === "/v1/session/methods") return json(response, { password: true, oidc: null });
    if (path === "/v1/users") {
      return json(response, page([
        { id: id("e", 0), name: "ann", rights: { everywhere: "admin" }, disabled: false, created: "2026-11-20T10:00:00Z" },
        { id: id("e", 1), name: "ben", rights: { projects: { default: "operator" } }, disabled: false, created: "2026-11-21T10:00:00Z" },
      ]));
    }
    if (path === "/v1/tokens") {
      return json(response, page([
        { id: id("d", 0), name: "ann", role: "admin", created: "2026-11-20T10:00:00Z" },
        { id: id("d", 1), name: "ci", role: "operator", created: "2026-11-21T10:00:00Z", expires: "2027-01-01T00:00:00Z" },
      ]));
    }
    if (path === "/v1/audit") {
      const items = Array.from({ length: 30 }, (_, at) => ({ at: new Date(Date.now() - at * 60_000).toISOString(), who: at % 7 ? "token:ann" : null, from: "10.0.0.7", what: at % 7 ? `POST /v1/vms/${id("a", at)}/start` : "DELETE /v1/vms/web-1", status: at % 7 ? 202 : 401, request: `0198f0aa-0000-7000-8000-${String(at).padStart(12, "0")}` }));
      return json(response, page(items));
    }
    if (path === "/v1/host") return json(response, { name: "rack1-node3", kernel: "Linux 6.12.9-amd64", cpu_model: "AMD EPYC 9354 32-Core Processor", cpus: 64, memory_bytes: 512 * 2 ** 30 });
    if (path === "/v1/version") return json(response, { program: "trined", version: "0.1.0", api: "1.0.0" });
    if (path.endsWith("/usage")) {
      stream(response);
      const isHost = path === "/v1/host/usage";
      const say = () => {
        cpu += isHost ? 21_000 + Math.random() * 9000 : 600 + Math.sin(Date.now() / 9000) * 400 + Math.random() * 200;
        const at = new Date().toISOString();
        const use = isHost ? { at, cpu_ms: cpu, memory_used_bytes: 2 ** 38 } : { at, is_running: true, cpu_ms: cpu, memory_bytes: 9e8 + Math.random() * 1e8, read_bytes: cpu * 900, written_bytes: cpu * 2100 };
        response.write(`data: ${JSON.stringify(use)}\n\n`);
      };
      say();
      const timer = setInterval(say, 1000);
      return response.on("close", () => clearInterval(timer));
    }
    if (things[parts[0]] && request.method === "GET") return json(response, page(things[parts[0]]));
    if (path === "/v1/pools") {
      const pool = (name, folder, quota_bytes) => ({ name, path: folder, quota_bytes, created: "2026-11-20T10:00:00Z", disks: 3, size_bytes: 1, used_bytes: 1 });
      return json(response, page([pool("default", null, null), pool("fast", "/srv/nvme/trine", 100 * 2 ** 30)]));
    }
    const vm = vms.get(parts[1]);
    if (parts[0] === "vms" && vm) {
      if (request.method === "DELETE") return json(response, begin(vm, "delete"), 202);
      if (request.method === "POST" && NEXT[parts[2]]) return json(response, begin(vm, parts[2]), 202);
      if (request.method === "GET" && parts.length === 2) return json(response, vm);
    }
    return json(response, { code: "not-found", detail: `there is nothing at ${path}` }, 404);
  });

  function file(path, response) {
    const name = join(WEB, normalize(path));
    const isThere = name.startsWith(WEB) && extname(name) !== "" && statSync(name, { throwIfNoEntry: false })?.isFile();
    const real = isThere ? name : join(WEB, "index.html");
    response.writeHead(200, { "content-type": KINDS[extname(real)] ?? "application/octet-stream" });
    response.end(readFileSync(real));
  }

  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, vms, asked, change, stop };
}
