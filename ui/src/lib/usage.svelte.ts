/** What is told every second while somebody looks, kept for as long as the graphs are. */
import { read } from "./events";

export type Point = { at: number; value: number };
const KEPT_MS = 300_000;
const AGAIN_MS = 2000;

/** What counts up, as what it went up by in a second; `null` before there are two. */
export function rate(from: { at: number; value: number } | undefined, to: Point): number | null {
  if (!from || to.at <= from.at || to.value < from.value) return null;
  return ((to.value - from.value) * 1000) / (to.at - from.at);
}

/** One series. */
export class Series {
  points = $state.raw<Point[]>([]);
  #last: Point | undefined;

  /** Adds a value. */
  add(point: Point) {
    const since = point.at - KEPT_MS;
    this.points = [...this.points.filter((one) => one.at >= since), point];
  }

  /** Adds what a counter went up by. */
  count(point: Point, scale: number) {
    const by = rate(this.#last, point);
    this.#last = point;
    if (by !== null) this.add({ at: point.at, value: by * scale });
  }
}

/** Reads a stream while the page is looked at, until it is told to stop. */
export function follow<T>(path: string, take: (event: T) => void): () => void {
  let now: AbortController | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isOver = false;
  const begin = () => {
    clearTimeout(timer);
    if (isOver || document.hidden || now) return;
    const own = new AbortController();
    now = own;
    read<T>(path, own.signal, () => {}, (events) => events.forEach(take))
      // The watch tells that the daemon is gone, and why; here it is only tried again.
      .catch(() => {})
      .finally(() => {
        if (now === own) now = null;
        if (!isOver) timer = setTimeout(begin, AGAIN_MS);
      });
  };
  const look = () => {
    if (document.hidden) now?.abort();
    else begin();
  };
  document.addEventListener("visibilitychange", look);
  begin();
  return () => {
    isOver = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
    now?.abort();
  };
}
