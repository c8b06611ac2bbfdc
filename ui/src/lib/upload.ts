/** Files that are sent: with progress, which fetch does not tell of. */
import { Problem } from "./api";

/** What their names end with, and what the daemon then takes them for; it looks at the bytes otherwise. */
export const DISK_FILES = ".raw,.img,.qcow2,.vmdk,.vhdx,.ova";

/** Sends a file. `told` hears how many bytes have gone. */
export function send<T>(path: string, file: Blob, told: (bytes: number) => void, stop: AbortSignal): Promise<T> {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => told(event.loaded);
    request.onload = () => {
      let body: unknown;
      try {
        body = JSON.parse(request.responseText);
      } catch {
        body = null;
      }
      if (request.status >= 200 && request.status < 300) return done(body as T);
      const { code = "failed", detail } = (body ?? {}) as { code?: string; detail?: string };
      failed(new Problem(request.status, code, detail ?? `The daemon answered ${request.status}.`));
    };
    request.onerror = () => failed(new Problem(0, "unreachable", "The connection was lost while the file was sent."));
    request.onabort = () => failed(new Problem(0, "stopped", "It was stopped."));
    stop.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/** A name for what a file has: lower case, digits and hyphens. */
export function nameOf(file: string): string {
  const stem = file.toLowerCase().replace(/(\.(raw|img|qcow2|vmdk|vhdx|ova))+$/, "");
  return stem.replace(/[^a-z0-9]+/g, "-").replace(/^[^a-z]+|-+$/g, "").slice(0, 63);
}
