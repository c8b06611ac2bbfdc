/** What can be done to disks and snapshots. */
import { ask, pathOf, type Disk, type Operation, type Snapshot } from "./api";
import { live } from "./live.svelte";

/** Asks for a change; what becomes of it the watch tells. */
async function change(method: string, path: string, body?: unknown) {
  live.put(await ask<Operation>(method, path, body));
}

export const attach = (disk: Disk, vm: string) => change("POST", pathOf("disks", disk, "/attach"), { vm });
export const detach = (disk: Disk) => change("POST", pathOf("disks", disk, "/detach"));
export const grow = (disk: Disk, size_bytes: number) => change("POST", pathOf("disks", disk, "/resize"), { size_bytes });
export const removeDisk = (disk: Disk, withSnapshots: boolean) =>
  change("DELETE", pathOf("disks", disk, "", withSnapshots ? "&force=true" : ""));
export const revert = (snapshot: Snapshot) => change("POST", pathOf("snapshots", snapshot, "/revert"));
export const removeSnapshot = (snapshot: Snapshot) => change("DELETE", pathOf("snapshots", snapshot));

/** Snapshots that a disk is in. */
export const snapshotsOf = (disk: Disk, all: Snapshot[]): Snapshot[] =>
  all.filter((one) => (one.spec.disk_ids ?? []).includes(disk.id));

/** What a disk was made of, in words. */
export function origin(disk: Disk): string {
  const { source } = disk.spec;
  if (!source) return "empty";
  return "image" in source ? source.image.name : "a file";
}

/** The VM that has it, or is to. */
export const holder = (disk: Disk): string | null => disk.spec.vm ?? disk.status.vm ?? null;
