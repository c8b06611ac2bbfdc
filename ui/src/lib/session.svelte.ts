/** Who is signed in. The token is in a cookie that no script can read. */
import { ask, get, onSignedOut, Problem, type Role, type Session } from "./api";
import { live } from "./live.svelte";

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

class SignedIn {
  /** `undefined` until it is known, `null` when nobody is. */
  now = $state<Session | null | undefined>(undefined);
  /** Why nobody is, if that is not what was asked for. */
  why = $state("");

  constructor() {
    onSignedOut(() => this.#end("Your session has ended: its token has expired or was deleted."));
  }

  /** Whether they may what needs this role. */
  may(role: Role): boolean {
    return this.now ? RANK[this.now.role] >= RANK[role] : false;
  }

  /** Their name, without what kind of name it is. */
  get name(): string {
    return this.now?.who.replace(/^token:/, "") ?? "";
  }

  async find() {
    try {
      this.#begin(await get<Session>("/v1/session"));
    } catch (error) {
      this.now = null;
      this.why = error instanceof Problem && error.status !== 401 ? error.message : "";
    }
  }

  async signIn(token: string) {
    const headers = { authorization: `Bearer ${token}` };
    this.#begin(await ask<Session>("POST", "/v1/session", undefined, headers));
  }

  async signOut() {
    await ask("DELETE", "/v1/session");
    this.#end("");
  }

  #begin(session: Session) {
    this.now = session;
    this.why = "";
    live.start();
  }

  #end(why: string) {
    if (!this.now) return;
    this.now = null;
    this.why = why;
    live.stop();
  }
}

export const session = new SignedIn();
