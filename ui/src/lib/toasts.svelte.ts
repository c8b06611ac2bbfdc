/** Short notes at the page's edge. */
import { Problem } from "./api";

export type Toast = { id: number; kind: "note" | "failure"; title: string; detail: string };

const NOTE_MS = 4000;
const FAILURE_MS = 12_000;
const SHOWN_MAX = 4;

class Toasts {
  shown = $state<Toast[]>([]);
  #next = 0;

  note(title: string, detail = "") {
    this.#show("note", title, detail, NOTE_MS);
  }

  failure(title: string, detail = "") {
    this.#show("failure", title, detail, FAILURE_MS);
  }

  /** Tells what went wrong, in the API's words. */
  problem(doing: string, error: unknown) {
    const detail = error instanceof Error ? error.message : String(error);
    const request = error instanceof Problem && error.status >= 500 ? error.request : null;
    this.failure(doing, request ? `${detail} (request ${request})` : detail);
  }

  close(id: number) {
    this.shown = this.shown.filter((toast) => toast.id !== id);
  }

  #show(kind: Toast["kind"], title: string, detail: string, forMs: number) {
    const id = this.#next++;
    this.shown = [...this.shown, { id, kind, title, detail }].slice(-SHOWN_MAX);
    setTimeout(() => this.close(id), forMs);
  }
}

export const toasts = new Toasts();
