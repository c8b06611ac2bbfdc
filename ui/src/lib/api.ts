/** The API: typed by its own document, with its problems as errors. */
import type { components } from "./api.gen";

type Schemas = components["schemas"];
export type Vm = Schemas["Vm"];
export type VmSpec = Schemas["VmSpec"];
export type Phase = Schemas["Phase"];
export type Operation = Schemas["Operation"];
export type Disk = Schemas["Disk"];
export type Snapshot = Schemas["Snapshot"];
export type VirtualNetwork = Schemas["VirtualNetwork"];
export type SecurityGroup = Schemas["SecurityGroup"];
export type ScaleSet = Schemas["ScaleSet"];
export type Rule = Schemas["Rule"];
export type Card = Schemas["Card"];
export type CardStatus = Schemas["CardStatus"];
export type Pool = Schemas["PoolView"];
export type Kind = Schemas["Kind"];
export type Project = Schemas["ProjectView"];
export type Image = Schemas["ImageView"];
export type Token = Schemas["Token"];
export type NewToken = Schemas["NewToken"];
export type NewlyMade = Schemas["NewlyMade"];
export type Audited = Schemas["AuditView"];
export type Session = Schemas["Session"];
export type SignInMethods = Schemas["Methods"];
export type User = Schemas["User"];
export type NewUser = Schemas["NewUser"];
export type Role = Schemas["Role"];
export type Usage = Schemas["UsageView"];
export type Host = Schemas["HostView"];
export type Version = Schemas["Version"];
export type Change = Schemas["ChangeView"];
export type Created = Schemas["Created"];
export type Forward = Schemas["Forward"];
export type Page<T> = { items: T[]; next_page?: string | null; revision: number };

/** What the API, or the way to it, has against a request. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly request: string | null = null,
  ) {
    super(detail);
  }
}

const UNREACHABLE = "The daemon cannot be reached. It may be restarting; VMs go on meanwhile.";
const listeners = new Set<() => void>();

/** Calls back when a session has ended. */
export function onSignedOut(listener: () => void) {
  listeners.add(listener);
}

/** The problem that an answer is. */
async function problem(answer: Response): Promise<Problem> {
  const request = answer.headers.get("x-request-id");
  try {
    const { code, detail } = (await answer.json()) as { code: string; detail: string };
    return new Problem(answer.status, code, detail, request);
  } catch {
    const detail = `The answer was ${answer.status} ${answer.statusText}`.trim();
    return new Problem(answer.status, "no-problem-document", detail, request);
  }
}

/** An answer that is not a problem. */
export async function open(path: string, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, credentials: "same-origin" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Problem(0, "unreachable", UNREACHABLE);
  }
  if (answer.ok) return answer;
  if (answer.status === 401 && !new Headers(init.headers).has("authorization")) {
    // A password that is wrong ends nothing.
    if (path !== "/v1/session" || init.method !== "POST") listeners.forEach((listener) => listener());
  }
  throw await problem(answer);
}

/** Asks; what comes is JSON. */
export async function ask<T>(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<T> {
  const init: RequestInit = { method, headers };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...headers, "content-type": "application/json" };
  }
  const answer = await open(path, init);
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

export const get = <T>(path: string) => ask<T>("GET", path);

/** All pages of a list, all of one revision. */
export async function all<T>(path: string): Promise<{ items: T[]; revision: number }> {
  const items: T[] = [];
  const mark = path.includes("?") ? "&" : "?";
  let next: string | null | undefined;
  let revision = 0;
  do {
    const page: Page<T> = await get(
      `${path}${mark}limit=1000${next ? `&page=${encodeURIComponent(next)}` : ""}`,
    );
    items.push(...page.items);
    revision = page.revision;
    next = page.next_page;
  } while (next);
  return { items, revision };
}

/** What all objects of a project have. */
export type Named = { id: string; name: string; project: string };

/** An object's path in the API. */
export function pathOf(kind: "disks" | "snapshots" | "networks" | "security-groups" | "scale-sets", of: Named, rest = "", query = ""): string {
  return `/v1/${kind}/${of.id}${rest}?project=${of.project}${query}`;
}

/** A VM's path in the API. */
export function vmPath(vm: Vm, rest = "", query = ""): string {
  return `/v1/vms/${vm.id}${rest}?project=${vm.project}${query}`;
}

/** The address of a VM's WebSocket. */
export function vmSocket(vm: Vm, what: "terminal" | "screen"): string {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}${vmPath(vm, `/${what}`)}`;
}
