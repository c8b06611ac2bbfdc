/** A VM that is being thought up, and what is asked for then. */
import type { Forward, Image, VmSpec } from "./api";
import { parseBytes } from "./format";

export type Draft = {
  name: string;
  project: string;
  source: "image" | "kernel";
  image: string;
  disk: string;
  kernel: string;
  initrd: string;
  cmdline: string;
  cpus: number;
  memory: string;
  cpusMax: string;
  memoryMax: string;
  network: "outbound" | "forwards" | "shared" | "none";
  on: string;
  groups: string[];
  forwards: Forward[];
  hasUser: boolean;
  user: string;
  keys: string;
  userData: string;
  engine: NonNullable<VmSpec["engine"]>;
  firmware: "bios" | "uefi";
  display: NonNullable<VmSpec["display"]>;
  onEnd: NonNullable<VmSpec["on_end"]>;
  isStarted: boolean;
};

export const EMPTY: Draft = {
  name: "",
  project: "default",
  source: "image",
  image: "",
  disk: "",
  kernel: "",
  initrd: "",
  cmdline: "console=ttyS0",
  cpus: 2,
  memory: "2 GiB",
  cpusMax: "",
  memoryMax: "",
  network: "outbound",
  on: "",
  groups: ["default"],
  forwards: [],
  hasUser: false,
  user: "",
  keys: "",
  userData: "",
  engine: "auto",
  firmware: "bios",
  display: "vga",
  onEnd: "stay",
  isStarted: true,
};

export const SIZES = [
  { label: "Small", cpus: 1, memory: "1 GiB" },
  { label: "Medium", cpus: 2, memory: "2 GiB" },
  { label: "Large", cpus: 4, memory: "8 GiB" },
];

const NAME = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** What is wrong with it, by field: what the API would say, before it is asked. */
export function wrongs(draft: Draft, taken: (name: string) => boolean, images: Image[]): Record<string, string> {
  const wrong: Record<string, string> = {};
  if (!NAME.test(draft.name)) {
    wrong["name"] = "Lower-case letters, digits and hyphens; a letter first, no hyphen last.";
  } else if (taken(draft.name)) wrong["name"] = `There is a VM '${draft.name}' in this project.`;
  const memory = parseBytes(draft.memory);
  if (memory === null || memory < 16 * 1024 ** 2) wrong["memory"] = "A size of at least 16 MiB, as in 2 GiB.";
  if (!Number.isInteger(draft.cpus) || draft.cpus < 1 || draft.cpus > 32) wrong["cpus"] = "1 to 32.";
  if (draft.source === "image") {
    const image = images.find((one) => one.name === draft.image);
    const disk = draft.disk.trim() ? parseBytes(draft.disk) : undefined;
    if (!image) wrong["image"] = "Choose an image.";
    if (disk === null) wrong["disk"] = "A size, as in 20 GiB.";
    else if (image && disk !== undefined && disk < image.size_bytes) {
      wrong["disk"] = "The disk cannot be smaller than its image.";
    }
  } else {
    if (!draft.kernel.startsWith("/")) wrong["kernel"] = "An absolute path on the host.";
    if (draft.initrd && !draft.initrd.startsWith("/")) wrong["initrd"] = "An absolute path on the host.";
  }
  const most = Number(draft.cpusMax || draft.cpus);
  if (!Number.isInteger(most) || most < draft.cpus || most > 32) wrong["cpus-max"] = "As many as it has, or more, up to 32.";
  const mostMemory = draft.memoryMax.trim() ? parseBytes(draft.memoryMax) : memory;
  if (mostMemory === null || (memory !== null && mostMemory < memory)) {
    wrong["memory-max"] = "A size, as in 8 GiB, of at least what it has.";
  }
  if (draft.network === "shared" && !draft.on) wrong["on"] = "Choose a network.";
  if (draft.network === "forwards" || draft.network === "shared") {
    const isPort = (port: number) => Number.isInteger(port) && port >= 1 && port <= 65_535;
    const isBad = draft.forwards.some((one) => !isPort(one.host_port) || !isPort(one.guest_port));
    if (isBad) wrong["forwards"] = "Ports are 1 to 65535.";
  }
  return wrong;
}

/** What is asked for: only what is not so anyway. */
export function spec(draft: Draft): VmSpec {
  const wanted: VmSpec = { cpus: draft.cpus, memory_bytes: parseBytes(draft.memory) ?? 0 };
  if (draft.source === "image") {
    wanted.image = draft.image;
    const disk = draft.disk.trim() ? parseBytes(draft.disk) : null;
    if (disk) wanted.disk_bytes = disk;
    if (draft.firmware !== "bios") wanted.boot_from = { firmware: draft.firmware };
  } else {
    wanted.boot_from = {
      kernel: {
        kernel: draft.kernel,
        ...(draft.initrd ? { initrd: draft.initrd } : {}),
        cmdline: draft.cmdline,
      },
    };
  }
  if (draft.cpusMax) wanted.cpus_max = Number(draft.cpusMax);
  if (draft.memoryMax.trim()) wanted.memory_max_bytes = parseBytes(draft.memoryMax);
  if (draft.network === "none") wanted.network = "none";
  else if (draft.network === "shared") {
    wanted.networks = [{ network: draft.on, security_groups: draft.groups, ports: draft.forwards }];
  } else if (draft.network === "forwards") wanted.network = { user: draft.forwards };
  else wanted.network = "outbound";
  if (draft.hasUser && draft.source === "image") {
    const keys = draft.keys.split("\n").map((one) => one.trim()).filter(Boolean);
    wanted.cloud_init = {
      ...(draft.user.trim() ? { user: draft.user.trim() } : {}),
      ...(keys.length > 0 ? { ssh_keys: keys } : {}),
      ...(draft.userData.trim() ? { user_data: draft.userData } : {}),
    };
  }
  if (draft.engine !== "auto") wanted.engine = draft.engine;
  if (draft.display !== "vga") wanted.display = draft.display;
  if (draft.onEnd !== "stay") wanted.on_end = draft.onEnd;
  if (!draft.isStarted) wanted.power = "off";
  return wanted;
}
