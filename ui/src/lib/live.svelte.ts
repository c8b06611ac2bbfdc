/**
 * What there is, as it changes: lists are read once, and then the watch tells. Nothing is asked for twice.
 *
 * Objects are kept in plain maps, and `version` goes up once a frame however many have changed: a thousand VMs
 * that start at once draw a page a few times, not a thousand times.
 */
import {
  all,
  get,
  Problem,
  type Change,
  type Disk,
  type Named,
  type Operation,
  type Page,
  type Project,
  type ScaleSet,
  type SecurityGroup,
  type Snapshot,
  type VirtualNetwork,
  type Vm,
} from "./api";
import { read } from "./events";
import { toasts } from "./toasts.svelte";

const AGAIN_MS = [250, 500, 1000, 2000, 5000];
/** A page nobody looks at gives its connection back after this: browsers have six for a host. */
const HIDDEN_MS = 20_000;
const OPERATIONS_MAX = 500;

export type Link = "connecting" | "live" | "lost";

class Live {
  /** Goes up when anything has changed. */
  version = $state(0);
  link = $state<Link>("connecting");
  /** The lists are there. */
  isLoaded = $state(false);

  /** All lists are there, not only those that most pages need. */
  isWhole = $state(false);

  #vms = new Map<string, Vm>();
  #disks = new Map<string, Disk>();
  #snapshots = new Map<string, Snapshot>();
  #networks = new Map<string, VirtualNetwork>();
  #groups = new Map<string, SecurityGroup>();
  #sets = new Map<string, ScaleSet>();
  #operations = new Map<string, Operation>();
  #projects = new Map<string, Project>();
  #revision = 0;
  #stop: AbortController | null = null;
  #pause: AbortController | null = null;
  #isDrawing = false;
  /** Operations that were asked for here: their failures are told. */
  #own = new Set<string>();

  get vms(): Vm[] {
    void this.version;
    return [...this.#vms.values()];
  }

  get operations(): Operation[] {
    void this.version;
    return [...this.#operations.values()].sort((a, b) => (a.created < b.created ? 1 : -1));
  }

  get projects(): Project[] {
    void this.version;
    return [...this.#projects.values()].sort((a, b) => a.name.localeCompare(b.name));
  }

  get disks(): Disk[] {
    return this.#sorted(this.#disks);
  }

  get networks(): VirtualNetwork[] {
    return this.#sorted(this.#networks);
  }

  get sets(): ScaleSet[] {
    return this.#sorted(this.#sets);
  }

  get groups(): SecurityGroup[] {
    return this.#sorted(this.#groups);
  }

  /** The newest first. */
  get snapshots(): Snapshot[] {
    void this.version;
    return [...this.#snapshots.values()].sort((a, b) => (a.created < b.created ? 1 : -1));
  }

  /** Those of a kind, by name. */
  #sorted<T extends Named>(of: Map<string, T>): T[] {
    void this.version;
    return [...of.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  }

  vm(project: string, name: string): Vm | undefined {
    void this.version;
    for (const vm of this.#vms.values()) {
      if (vm.name === name && vm.project === project) return vm;
    }
    return undefined;
  }

  /** Begins to follow. */
  start() {
    this.stop();
    const stop = new AbortController();
    this.#stop = stop;
    document.addEventListener("visibilitychange", this.#look);
    void this.#follow(stop.signal);
  }

  /** Forgets all: somebody has signed out. */
  stop() {
    this.#stop?.abort();
    this.#stop = null;
    document.removeEventListener("visibilitychange", this.#look);
    this.#vms.clear();
    this.#operations.clear();
    this.#projects.clear();
    for (const kind of ["disk", "snapshot", "network", "security-group", "scale-set"] as const) this.#kept(kind)?.clear();
    this.isLoaded = false;
    this.isWhole = false;
    this.link = "connecting";
    this.version += 1;
  }

  /** Takes in what an answer has said, before the watch says it too. */
  put(operation: Operation, vm?: Vm) {
    if (!this.#operations.has(operation.id)) this.#operations.set(operation.id, operation);
    if (vm && !this.#vms.has(vm.id)) this.#vms.set(vm.id, vm);
    this.#own.add(operation.id);
    this.#draw();
  }

  #look = () => {
    if (!document.hidden) {
      this.#pause?.abort();
      this.#pause = null;
    }
  };

  async #follow(stop: AbortSignal) {
    let failures = 0;
    let isOld = true;
    while (!stop.aborted) {
      try {
        if (isOld) await this.#load();
        isOld = false;
        await this.#watch(stop, () => (failures = 0));
      } catch (error) {
        if (stop.aborted) return;
        // What happened since is no longer known: begin anew.
        if (error instanceof Problem && error.status === 410) isOld = true;
        else if (error instanceof Problem && error.status === 401) return;
      }
      if (stop.aborted) return;
      this.link = "lost";
      await new Promise((wake) => setTimeout(wake, AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)]));
      failures += 1;
    }
  }

  async #load() {
    const vms = await all<Vm>("/v1/vms");
    const [operations, projects] = await Promise.all([
      get<Page<Operation>>("/v1/operations?sort=-created&limit=200"),
      all<Project>("/v1/projects"),
    ]);
    this.#vms = new Map(vms.items.map((vm) => [vm.id, vm]));
    this.#operations = new Map(operations.items.map((one) => [one.id, one]));
    this.#projects = new Map(projects.items.map((one) => [one.name, one]));
    this.#revision = vms.revision;
    this.isLoaded = true;
    this.version += 1;
    // Before the watch begins: what it then tells is newer.
    const lists = {
      disk: "disks",
      snapshot: "snapshots",
      network: "networks",
      "security-group": "security-groups",
      "scale-set": "scale-sets",
    } as const;
    const read = Object.entries(lists).map(async ([kind, plural]) => {
      const kept = this.#kept(kind);
      const { items } = await all<Named>(`/v1/${plural}`);
      kept?.clear();
      for (const one of items) kept?.set(one.id, one);
    });
    await Promise.all(read);
    this.isWhole = true;
    this.version += 1;
  }

  /** Where objects of a kind are kept. */
  #kept(kind: string): Map<string, unknown> | undefined {
    switch (kind) {
      case "vm":
        return this.#vms;
      case "project":
        return this.#projects;
      case "disk":
        return this.#disks;
      case "snapshot":
        return this.#snapshots;
      case "network":
        return this.#networks;
      case "security-group":
        return this.#groups;
      case "scale-set":
        return this.#sets;
      default:
        return undefined;
    }
  }

  async #watch(stop: AbortSignal, began: () => void) {
    const cut = new AbortController();
    const end = () => cut.abort();
    stop.addEventListener("abort", end);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const hide = () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(end, HIDDEN_MS);
    };
    document.addEventListener("visibilitychange", hide);
    hide();
    try {
      await read<Change>(
        `/v1/watch?from=${this.#revision + 1}`,
        cut.signal,
        () => {
          this.link = "live";
          began();
        },
        (changes) => changes.forEach((change) => this.#take(change)),
      );
    } catch (error) {
      if (!cut.signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
      stop.removeEventListener("abort", end);
      document.removeEventListener("visibilitychange", hide);
    }
    if (document.hidden && !stop.aborted) {
      // Until somebody looks again; the watch then tells what was missed.
      const pause = new AbortController();
      this.#pause = pause;
      await new Promise<void>((wake) => {
        pause.signal.addEventListener("abort", () => wake());
        stop.addEventListener("abort", () => wake());
      });
    }
  }

  #take(change: Change) {
    this.#revision = Math.max(this.#revision, change.revision);
    const { kind, id, object } = change;
    if (kind === "operation") {
      const operation = object as Operation | null | undefined;
      if (operation) {
        this.#tell(operation);
        this.#operations.set(id, operation);
        this.#trim();
      } else this.#operations.delete(id);
    } else if (object) this.#kept(kind)?.set(id, object);
    else this.#kept(kind)?.delete(id);
    this.#draw();
  }

  #tell(operation: Operation) {
    if (operation.state === "running" || !this.#own.delete(operation.id)) return;
    if (operation.state === "failed") {
      const { name } = operation.target;
      toasts.failure(`Could not ${operation.verb} ${name}`, operation.error?.message ?? "");
    }
  }

  #trim() {
    if (this.#operations.size <= OPERATIONS_MAX) return;
    for (const [id, operation] of this.#operations) {
      if (operation.state !== "running") {
        this.#operations.delete(id);
        return;
      }
    }
  }

  #draw() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    // A page in the background draws no frames, and is still to be right when it is looked at.
    const draw = () => {
      this.#isDrawing = false;
      this.version += 1;
    };
    if (document.hidden) setTimeout(draw, 100);
    else requestAnimationFrame(draw);
  }
}

export const live = new Live();
