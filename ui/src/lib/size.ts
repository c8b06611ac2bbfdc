/** CPUs and memory: what of a change comes at once, and what with the next start. */
import type { Vm } from "./api";
import { bytes, parseBytes } from "./format";

export type Sizes = {
  cpus: number;
  memory_bytes: number | null;
  cpus_max: number | null;
  memory_max_bytes: number | null;
};

/** Of what was typed. A field for a number gives a number, or nothing. */
export function sizesOf(cpus: number, memory: string, cpusMax: string | number | null, memoryMax: string): Sizes {
  return {
    cpus,
    memory_bytes: parseBytes(memory),
    cpus_max: cpusMax ? Number(cpusMax) : null,
    memory_max_bytes: memoryMax.trim() ? parseBytes(memoryMax) : null,
  };
}

/** What other settings are, to people; they count from the next start. */
const LATER: Record<string, string> = {
  cpus_max: "how many CPUs it can grow to",
  memory_max: "how much memory it can grow to",
  firmware: "firmware",
  engine: "engine",
  display: "screen",
};

/** When each change to a VM that runs counts, in sentences. */
export function effectsOf(vm: Vm, changed: string[], to: Sizes): string[] {
  const said: string[] = [];
  const { spec, status } = vm;
  const hasCpus = status.cpus ?? spec.cpus ?? 1;
  const hasMemory = status.memory_bytes ?? spec.memory_bytes ?? 0;
  if (changed.includes("cpus")) {
    const most = Math.max(status.cpus_max ?? 0, hasCpus);
    if (to.cpus > hasCpus && to.cpus <= most) said.push(`${to.cpus} CPUs: at once.`);
    else if (to.cpus > hasCpus) said.push(`${to.cpus} CPUs: from its next start; while it runs it can have ${most}.`);
    else if (to.cpus < hasCpus) said.push(`${to.cpus} CPU${to.cpus > 1 ? "s" : ""}: from its next start; CPUs do not go while it runs.`);
  }
  const memory = to.memory_bytes;
  if (changed.includes("memory") && memory !== null) {
    const most = Math.max(status.memory_max_bytes ?? 0, hasMemory);
    if (memory > hasMemory && memory <= most) said.push(`${bytes(memory)} of memory: at once, in whole steps.`);
    else if (memory > hasMemory) said.push(`${bytes(memory)} of memory: from its next start; while it runs it can have ${bytes(most)}.`);
    else if (memory < hasMemory) said.push(`${bytes(memory)} of memory: from its next start; memory does not go while it runs.`);
  }
  const later = Object.entries(LATER).filter(([key]) => changed.includes(key));
  if (later.length > 0) said.push(`From its next start: ${later.map(([, words]) => words).join(", ")}.`);
  return said;
}

/** What is wanted already and waits for a start. */
export function waitingOf(vm: Vm): string {
  const waits = (vm.status.at_next_start ?? []).map((field) =>
    field === "cpus" ? `${vm.spec.cpus} CPUs` : `${bytes(vm.spec.memory_bytes ?? 0)} of memory`,
  );
  return waits.length > 0 ? `Waits for its next start: ${waits.join(" and ")}.` : "";
}
