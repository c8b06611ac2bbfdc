/** Where we are: the path is the state, so every place can be linked to. */

class Route {
  path = $state(location.pathname);
  query = $state(new URLSearchParams(location.search));

  constructor() {
    addEventListener("popstate", () => this.#read());
    document.addEventListener("click", (event) => this.#click(event));
  }

  /** The path's parts, decoded. */
  get parts(): string[] {
    return this.path.split("/").filter(Boolean).map(decodeURIComponent);
  }

  go(to: string, isReplacing = false) {
    if (isReplacing) history.replaceState(null, "", to);
    else history.pushState(null, "", to);
    this.#read();
    if (!isReplacing) document.querySelector("main")?.scrollTo(0, 0);
  }

  /** Puts a value into the query, without a step in the browser's history. */
  note(key: string, value: string) {
    const query = new URLSearchParams(location.search);
    if (value) query.set(key, value);
    else query.delete(key);
    const text = query.toString();
    history.replaceState(null, "", text ? `${this.path}?${text}` : this.path);
    this.query = query;
  }

  #read() {
    this.path = location.pathname;
    this.query = new URLSearchParams(location.search);
  }

  #click(event: MouseEvent) {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.("a");
    const href = link?.getAttribute("href");
    if (!link || !href?.startsWith("/") || href.startsWith("/v1") || link.target) return;
    event.preventDefault();
    this.go(href);
  }
}

export const route = new Route();

/** Where an object's own page is. */
export function objectHref(kind: "networks" | "security-groups", of: { project: string; name: string }): string {
  return `/${kind}/${of.project}/${of.name}`;
}

/** Where a VM's page is. */
export function vmHref(vm: { project: string; name: string }, tab = ""): string {
  return `/vms/${vm.project}/${vm.name}${tab ? `/${tab}` : ""}`;
}
