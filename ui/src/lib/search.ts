/** What the filter above a list understands, and the order of what the palette finds. */
import type { Vm } from "./api";

function fields(vm: Vm): Record<string, string> {
  return {
    name: vm.name,
    project: vm.project,
    phase: vm.status.phase,
    engine: vm.status.engine ?? vm.spec.engine ?? "",
    image: vm.spec.image ?? "",
    id: vm.id,
  };
}

/**
 * Words that must all be found: bare ones in name, project, image or labels; `phase:running`, `engine:hw`,
 * `image:debian`, `project:lab` and `label:env=prod` where they say; with `-` before, not at all.
 */
export function matches(vm: Vm, filter: string): boolean {
  return filter
    .toLowerCase()
    .split(/\s+/)
    .filter(Boolean)
    .every((word) => {
      const isNot = word.length > 1 && word.startsWith("-");
      return has(vm, isNot ? word.slice(1) : word) !== isNot;
    });
}

function has(vm: Vm, word: string): boolean {
  const colon = word.indexOf(":");
  const labels = Object.entries(vm.spec.labels ?? {}).map(([k, v]) => `${k}=${v}`.toLowerCase());
  const all = fields(vm);
  if (colon > 0) {
    const [key, value] = [word.slice(0, colon), word.slice(colon + 1)];
    if (key === "label") return labels.some((label) => label.startsWith(value));
    const field = all[key];
    if (field !== undefined) return field.toLowerCase().includes(value);
  }
  const text = [vm.name, vm.project, vm.status.phase, vm.spec.image ?? "", ...labels];
  return text.some((one) => one.toLowerCase().includes(word));
}

/** How well a text is what was typed; 0: not at all. Letters in order are enough, together is better. */
export function score(text: string, typed: string): number {
  const [t, q] = [text.toLowerCase(), typed.toLowerCase().trim()];
  if (!q) return 1;
  if (t === q) return 1000;
  const at = t.indexOf(q);
  if (at === 0) return 800 - t.length;
  if (at > 0) return (/[\s\-/]/.test(t[at - 1] ?? "") ? 600 : 400) - t.length;
  let from = 0;
  for (const letter of q.replaceAll(" ", "")) {
    from = t.indexOf(letter, from) + 1;
    if (from === 0) return 0;
  }
  return Math.max(1, 100 - t.length);
}
