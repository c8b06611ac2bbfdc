/** Rules of security groups, as people say and type them. */
import type { Rule } from "./api";

export type Draft = {
  direction: Rule["direction"];
  protocol: NonNullable<Rule["protocol"]>;
  ports: string;
  peer: "anybody" | "cidr" | "group";
  cidr: string;
  group: string;
};

export const EMPTY: Draft = { direction: "in", protocol: "tcp", ports: "", peer: "anybody", cidr: "", group: "default" };

/** What is most often let through. */
export const COMMON: { label: string; rule: Partial<Draft> }[] = [
  { label: "SSH", rule: { protocol: "tcp", ports: "22" } },
  { label: "HTTP", rule: { protocol: "tcp", ports: "80" } },
  { label: "HTTPS", rule: { protocol: "tcp", ports: "443" } },
  { label: "Ping", rule: { protocol: "icmp", ports: "" } },
];

/** The protocol has ports. */
export const hasPorts = (protocol: Draft["protocol"]): boolean => protocol === "tcp" || protocol === "udp";

/** What is wrong with it; empty when nothing is. */
export function wrong(draft: Draft): string {
  if (draft.ports && hasPorts(draft.protocol)) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(draft.ports.trim());
    const [first, last] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
    if (!match || first < 1 || last > 65_535 || first > last) return "Ports are a number or a range: 80, 8000-8999.";
  }
  if (draft.peer === "cidr" && !draft.cidr.trim()) return "Give addresses, as in 192.0.2.0/24.";
  return "";
}

/** The rule of it. */
export function rule(draft: Draft): Rule {
  const peer =
    draft.peer === "anybody" ? "anybody" : draft.peer === "cidr" ? { cidr: draft.cidr.trim() } : { group: draft.group };
  const ports = hasPorts(draft.protocol) && draft.ports.trim() ? { ports: draft.ports.trim() } : {};
  return { direction: draft.direction, protocol: draft.protocol, peer, ...ports };
}

/** What it lets through. */
export function what(of: Rule): string {
  const protocol = of.protocol ?? "any";
  const name = protocol === "any" ? "anything" : protocol.toUpperCase();
  return of.ports ? `${name} ${of.ports}` : hasPorts(protocol) ? `${name}, all ports` : name;
}

/** From or to whom. */
export function whom(of: Rule): string {
  const peer = of.peer ?? "anybody";
  if (typeof peer === "string") return "anybody";
  return "cidr" in peer ? peer.cidr : `group ${peer.group}`;
}
