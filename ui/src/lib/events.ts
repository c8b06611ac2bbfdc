/** Server-sent events over fetch: unlike EventSource it tells why a stream was refused. */
import { open } from "./api";

/** Silence after which a stream is given up: the daemon says something every 15 seconds. */
const SILENCE_MS = 40_000;

/** Cuts text into events' data, and keeps what is not whole yet. */
export class Cutter {
  #rest = "";

  /** The data of the events that are whole with this text. */
  add(text: string): string[] {
    const parts = (this.#rest + text).split(/\r?\n\r?\n/);
    this.#rest = parts.pop() ?? "";
    const data = (part: string) =>
      part
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).replace(/^ /, ""))
        .join("\n");
    return parts.map(data).filter((one) => one !== "");
  }
}

/** Reads events until the stream ends, fails or is aborted. */
export async function read<T>(
  path: string,
  signal: AbortSignal,
  began: () => void,
  take: (events: T[]) => void,
): Promise<void> {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE_MS);
  const stop = () => silent.abort();
  signal.addEventListener("abort", stop);
  try {
    if (signal.aborted) return;
    const answer = await open(path, { signal: silent.signal });
    const reader = answer.body?.getReader();
    if (!reader) return;
    began();
    const decoder = new TextDecoder();
    const cutter = new Cutter();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE_MS);
      const events = cutter.add(decoder.decode(value, { stream: true }));
      if (events.length > 0) take(events.map((event) => JSON.parse(event) as T));
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}
