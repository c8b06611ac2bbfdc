import { describe, expect, it } from "vitest";

import { EMPTY, spec, wrongs } from "../src/lib/draft";
import { Cutter } from "../src/lib/events";
import { bytes, parseBytes, span } from "../src/lib/format";
import { matches, score } from "../src/lib/search";
import { rate } from "../src/lib/usage.svelte";
import { can } from "../src/lib/verbs";
import { vm } from "./fixtures";

describe("sizes", () => {
  it("are shown in the unit that leaves few digits", () => {
    expect(bytes(0)).toBe("0 B");
    expect(bytes(1536)).toBe("1.5 KiB");
    expect(bytes(512 * 2 ** 20)).toBe("512 MiB");
    expect(bytes(2 ** 31)).toBe("2 GiB");
  });

  it("are read as people write them", () => {
    expect(parseBytes("2")).toBe(2 ** 31);
    expect(parseBytes("512 MiB")).toBe(2 ** 29);
    expect(parseBytes("1.5g")).toBe(1.5 * 2 ** 30);
    expect(parseBytes(bytes(2 ** 31))).toBe(2 ** 31);
    for (const text of ["", "x", "-1G", "1 Z", "1 GiB more"]) expect(parseBytes(text)).toBeNull();
  });

  it("and times have two units at most", () => {
    expect(span(59)).toBe("59 s");
    expect(span(3725)).toBe("1 h 2 min");
    expect(span(100_000)).toBe("1 d 3 h");
  });
});

describe("the filter", () => {
  const web = vm("web-1", "running", { image: "debian-12", labels: { env: "prod", tier: "" } });

  it("finds what all its words are in", () => {
    for (const filter of ["", "web", "WEB run", "phase:running", "label:env=prod", "label:env", "image:deb", "-db", "web -phase:stopped"]) {
      expect(matches(web, filter), filter).toBe(true);
    }
    for (const filter of ["db", "phase:stopped", "label:env=test", "web -running", "engine:hw"]) {
      expect(matches(web, filter), filter).toBe(false);
    }
  });
});

describe("the palette", () => {
  it("prefers what begins as typed, then words, then letters in order", () => {
    const order = ["web-1", "my web", "Workers on EBS"].map((text) => score(text, "web"));
    expect(order).toEqual([...order].sort((a, b) => b - a));
    expect(order.every((one) => one > 0)).toBe(true);
    expect(score("db", "web")).toBe(0);
    expect(score("Stop web-1", "stop web-1")).toBe(1000);
  });
});

describe("events", () => {
  it("are whole, however they are cut", () => {
    const text = 'id: 1\ndata: {"a":1}\n\n: alive\n\ndata: x\ndata: y\n\ndata: half';
    for (const size of [1, 2, 7, 100]) {
      const cutter = new Cutter();
      const found: string[] = [];
      for (let at = 0; at < text.length; at += size) found.push(...cutter.add(text.slice(at, at + size)));
      expect(found).toEqual(['{"a":1}', "x\ny"]);
    }
  });
});

describe("a counter", () => {
  it("has no rate before it is told twice, nor when it begins anew", () => {
    expect(rate(undefined, { at: 0, value: 5 })).toBeNull();
    expect(rate({ at: 0, value: 5 }, { at: 1000, value: 3 })).toBeNull();
    expect(rate({ at: 0, value: 5 }, { at: 500, value: 15 })).toBe(20);
  });
});

describe("verbs", () => {
  it("are offered when they make sense", () => {
    expect(can(vm("a", "stopped"), "start")).toBe(true);
    expect(can(vm("a", "running"), "start")).toBe(false);
    expect(can(vm("a", "stopping"), "force-stop")).toBe(true);
    expect(can(vm("a", "deleting"), "delete")).toBe(false);
  });
});

describe("a draft", () => {
  const image = { name: "debian-12", id: "x", size_bytes: 2 ** 31, used_bytes: 1, created: "", source: "" };
  const good = { ...EMPTY, name: "web-1", image: "debian-12" };
  const none = () => false;

  it("says what is wrong with it, by field", () => {
    expect(wrongs(good, none, [image])).toEqual({});
    expect(Object.keys(wrongs({ ...good, name: "Web" }, none, [image]))).toEqual(["name"]);
    expect(Object.keys(wrongs(good, () => true, [image]))).toEqual(["name"]);
    expect(Object.keys(wrongs({ ...good, disk: "1G" }, none, [image]))).toEqual(["disk"]);
    expect(Object.keys(wrongs({ ...good, source: "kernel" }, none, []))).toEqual(["kernel"]);
    const forwards = [{ host_port: 0, guest_port: 22 }];
    expect(Object.keys(wrongs({ ...good, network: "forwards", forwards }, none, [image]))).toEqual(["forwards"]);
  });

  it("asks only for what is not so anyway", () => {
    expect(spec(good)).toEqual({
      cpus: 2,
      memory_bytes: 2 ** 31,
      image: "debian-12",
      network: "outbound",
    });
    const told = spec({ ...good, hasUser: true, user: "ann", keys: "k1\n\n k2 \n", isStarted: false });
    expect(told.cloud_init).toEqual({ user: "ann", ssh_keys: ["k1", "k2"] });
    expect(told.power).toBe("off");
  });
});
