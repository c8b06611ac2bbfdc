/** Who is signed in. What proves it is in a cookie that no script can read. */
import { ask, get, onSignedOut, Problem, type Role, type Session, type SignInMethods } from "./api";
import { live } from "./live.svelte";

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

class SignedIn {
  /** `undefined` until it is known, `null` when nobody is. */
  now = $state<Session | null | undefined>(undefined);
  /** Why nobody is, if that is not what was asked for. */
  why = $state("");

  constructor() {
    onSignedOut(() => this.#end("Your session has ended: its time is over, or your token, password or roles were changed."));
  }

  /** Whether they may, in some project, what needs this role: the API knows in which. */
  may(role: Role): boolean {
    const own = this.now?.role;
    return own ? RANK[own] >= RANK[role] : false;
  }

  /** Whether they may it in all projects, and of what is in none. */
  mayEverywhere(role: Role): boolean {
    const own = this.now?.rights.everywhere;
    return own ? RANK[own] >= RANK[role] : false;
  }

  /** Their name, without what kind of name it is. */
  get name(): string {
    return this.now?.who.replace(/^(token|user):/, "") ?? "";
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

  async signInAs(user: string, password: string) {
    this.#begin(await ask<Session>("POST", "/v1/session", { user, password }));
  }

  /** By what else one can sign in; nothing where that cannot be told. */
  async methods(): Promise<SignInMethods> {
    try {
      return await get<SignInMethods>("/v1/session/methods");
    } catch {
      return { password: false, oidc: null };
    }
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
