import { expect, test } from "vitest";

import type { Rule, Vm } from "../src/lib/api";
import { EMPTY as DRAFT, spec, wrongs } from "../src/lib/draft";
import { EMPTY, rule, what, whom, wrong } from "../src/lib/rules";
import { effectsOf, sizesOf, waitingOf } from "../src/lib/size";
import { nameOf } from "../src/lib/upload";

const GIB = 2 ** 30;
const running = {
  spec: { cpus: 2, memory_bytes: 2 * GIB, cpus_max: 4, memory_max_bytes: 4 * GIB },
  status: { phase: "running", cpus: 2, memory_bytes: 2 * GIB, cpus_max: 4, memory_max_bytes: 4 * GIB },
} as unknown as Vm;

test("what of a new size comes at once, and what with the next start, is said", () => {
  const said = (cpus: number, memory: string) =>
    effectsOf(running, ["cpus", "memory"], sizesOf(cpus, memory, "", "")).map((one) => (one.includes("at once") ? "now" : "later"));
  expect(said(4, "4 GiB")).toEqual(["now", "now"]);
  expect(said(5, "4 GiB")).toEqual(["later", "now"]);
  expect(said(1, "8 GiB")).toEqual(["later", "later"]);
  expect(said(2, "2 GiB")).toEqual([]);
  expect(effectsOf(running, ["engine", "labels"], sizesOf(2, "2 GiB", "", ""))).toEqual(["From its next start: engine."]);
});

test("what waits for a start is said", () => {
  expect(waitingOf(running)).toBe("");
  const waits = { ...running, spec: { ...running.spec, cpus: 8 }, status: { ...running.status, at_next_start: ["cpus"] } };
  expect(waitingOf(waits as Vm)).toBe("Waits for its next start: 8 CPUs.");
});

test("a rule is what was typed, and is said so", () => {
  const web: Rule = { direction: "in", protocol: "tcp", ports: "8000-8999", peer: { cidr: "192.0.2.0/24" } };
  expect(rule({ ...EMPTY, ports: " 8000-8999 ", peer: "cidr", cidr: "192.0.2.0/24" })).toEqual(web);
  expect([what(web), whom(web)]).toEqual(["TCP 8000-8999", "192.0.2.0/24"]);
  // What has no ports is given none.
  expect(rule({ ...EMPTY, protocol: "icmp", ports: "80" })).toEqual({ direction: "in", protocol: "icmp", peer: "anybody" });
  for (const ports of ["0", "80-", "90-80", "65536", "http"]) expect(wrong({ ...EMPTY, ports })).not.toBe("");
  expect(wrong({ ...EMPTY, ports: "80" })).toBe("");
});

test("a file's name makes a name", () => {
  expect(nameOf("Debian_12 (final).qcow2")).toBe("debian-12-final");
  expect(nameOf("99-disk.raw")).toBe("disk");
});

test("a VM on a network has a card there, and bounds are at least what it has", () => {
  const draft = { ...DRAFT, name: "a", image: "i", network: "shared" as const, on: "lan", groups: ["web"], cpusMax: "4", memoryMax: "8 GiB" };
  expect(spec(draft)).toMatchObject({
    cpus_max: 4,
    memory_max_bytes: 8 * GIB,
    networks: [{ network: "lan", security_groups: ["web"], ports: [] }],
  });
  const bad = { ...draft, on: "", cpusMax: "1", memoryMax: "1 GiB" };
  expect(Object.keys(wrongs(bad, () => false, []))).toEqual(expect.arrayContaining(["on", "cpus-max", "memory-max"]));
});
