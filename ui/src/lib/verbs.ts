/** What can be done to VMs. */
import { ask, vmPath, type Operation, type Phase, type Vm } from "./api";
import { live } from "./live.svelte";
import { toasts } from "./toasts.svelte";

export type Verb = "start" | "stop" | "force-stop" | "restart" | "pause" | "resume" | "delete";

const UP: Phase[] = ["running", "paused", "starting", "stopping"];

/** Whether it makes sense now. */
export function can(vm: Vm, verb: Verb): boolean {
  const phase = vm.status.phase;
  if (phase === "deleting") return false;
  switch (verb) {
    case "start":
      return phase === "stopped" || phase === "failed";
    case "stop":
      return phase === "running" || phase === "paused" || phase === "starting" || phase === "pending";
    case "force-stop":
      return UP.includes(phase);
    case "restart":
      return phase === "running" || phase === "paused";
    case "pause":
      return phase === "running";
    case "resume":
      return phase === "paused";
    case "delete":
      return true;
  }
}

/** Whether something of it runs. */
export function isUp(vm: Vm): boolean {
  return UP.includes(vm.status.phase);
}

/** Asks for it; what becomes of it the watch tells. */
async function request(vm: Vm, verb: Verb): Promise<Operation> {
  if (verb === "delete") return ask("DELETE", vmPath(vm, "", isUp(vm) ? "&force=true" : ""));
  if (verb === "force-stop") return ask("POST", vmPath(vm, "/stop", "&force=true"));
  return ask("POST", vmPath(vm, `/${verb}`));
}

/** So many requests at a time: browsers have six connections, and the watch has one. */
const AT_ONCE = 4;

/** Does it to those it makes sense for, and tells of refusals. */
export async function act(vms: Vm[], verb: Verb) {
  const todo = vms.filter((vm) => can(vm, verb));
  let next = 0;
  const refused: string[] = [];
  const worker = async () => {
    for (let vm = todo[next++]; vm; vm = todo[next++]) {
      try {
        live.put(await request(vm, verb));
      } catch (error) {
        refused.push(`${vm.name}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (refused.length > 0) {
    const of = todo.length > 1 ? `${refused.length} of ${todo.length} VMs` : (todo[0]?.name ?? "");
    const words = verb === "force-stop" ? "stop" : verb;
    const shown = refused.slice(0, 3).join("\n");
    toasts.failure(`Could not ${words} ${of}`, todo.length > 1 ? shown : shown.replace(/^[^:]*: /, ""));
  }
}
