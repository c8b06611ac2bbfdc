import type { Operation, Phase, Vm } from "../src/lib/api";

/** A VM, as the API tells of it. */
export function vm(name: string, phase: Phase = "running", more: Partial<Vm["spec"]> = {}): Vm {
  return {
    id: `00000000-0000-4000-8000-${name.padStart(12, "0").slice(-12)}`,
    name,
    project: "default",
    created: "2026-01-01T00:00:00Z",
    spec: { cpus: 2, memory_bytes: 2 ** 31, boot: 1, ...more },
    status: { phase, boot: 1 },
  };
}

/** A change that was asked for. */
export function operation(of: Vm, more: Partial<Operation> = {}): Operation {
  return {
    id: `op-${of.name}`,
    verb: "start",
    target: { kind: "vm", id: of.id, name: of.name, project: of.project },
    boot: 1,
    requestor: { who: "token:ann", request: "r" },
    state: "running",
    phase: "starting",
    percent: 50,
    can_cancel: true,
    created: "2026-01-01T00:00:00Z",
    ...more,
  };
}
