/** Heika for H5: every call typed, a session that renews itself, one key for each POST, refusals as exceptions. */

import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type { components, paths };
export type Problem = components["schemas"]["Problem"];
export type Tokens = Pick<components["schemas"]["TokenPair"], "access_token" | "refresh_token">;

/** Where a session is kept between visits. */
export interface Keeper {
  read(): Tokens | null;
  write(tokens: Tokens | null): void;
}

/** Heika says no: `code` is stable, the message says what to do next. */
export class Refused extends Error {
  readonly code: string;
  readonly problem: Partial<Problem>;

  constructor(
    readonly status: number,
    told: unknown,
  ) {
    const problem: Partial<Problem> = typeof told === "object" && told !== null ? told : {};
    super(problem.detail ?? `HTTP ${status}`);
    this.name = "Refused";
    this.problem = problem;
    this.code = problem.code ?? `http_${status}`;
  }
}

/** What a call answers; Refused when it is refused. `await ok(heika.GET("/v1/plans"))` */
export async function ok<Data>(call: Promise<{ data?: Data; error?: unknown; response: Response }>): Promise<Data> {
  const { data, error, response } = await call;
  if (!response.ok) throw new Refused(response.status, error);
  return data as Data;
}

/** A session for as long as the page is open. */
export function inMemory(): Keeper {
  let kept: Tokens | null = null;
  return { read: () => kept, write: (tokens) => void (kept = tokens) };
}

/** A session that outlives the page, and is shared by its tabs. */
export function inStorage(name = "heika.session"): Keeper {
  return {
    read: () => JSON.parse(localStorage.getItem(name) ?? "null") as Tokens | null,
    write: (tokens) => (tokens ? localStorage.setItem(name, JSON.stringify(tokens)) : localStorage.removeItem(name)),
  };
}

/** A value for `Idempotency-Key`: keep it until the call is answered, and it takes effect once however often it is sent. */
export function newKey(): string {
  // crypto.randomUUID is missing on pages without https.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The calls of one address, in the name of whoever `session` knows. */
export function connect(address: string, session: Keeper = inMemory(), language = "zh-CN"): Client<paths> {
  const renewing = new Map<string, Promise<string | null>>();

  async function exchange(used: string): Promise<string | null> {
    const held = session.read();
    // Another tab was faster, or somebody logged out.
    if (held === null || held.access_token !== used) return held?.access_token ?? null;
    const answer = await fetch(`${address}/v1/auth/refresh`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ refresh_token: held.refresh_token }),
    });
    // The session is over: ended elsewhere, or too old.
    if (answer.status === 400 || answer.status === 401 || answer.status === 403) session.write(null);
    if (!answer.ok) return null;
    const { access_token, refresh_token } = (await answer.json()) as Tokens;
    session.write({ access_token, refresh_token });
    return access_token;
  }

  // A refresh token is good once: calls of this page share one exchange, and tabs take turns.
  function renewed(used: string): Promise<string | null> {
    const turn = renewing.get(used) ?? (async () => {
      try {
        const locks = globalThis.navigator?.locks;
        return await (locks ? locks.request("heika.renew", () => exchange(used)) : exchange(used));
      } finally {
        renewing.delete(used);
      }
    })();
    renewing.set(used, turn);
    return turn;
  }

  async function send(request: Request): Promise<Response> {
    const used = session.read()?.access_token;
    if (request.method === "POST" && !request.headers.has("Idempotency-Key")) {
      request.headers.set("Idempotency-Key", newKey());
    }
    if (used === undefined || request.headers.has("Authorization")) return fetch(request);
    const again = request.clone();
    request.headers.set("Authorization", `Bearer ${used}`);
    const answer = await fetch(request);
    if (answer.status !== 401) return answer;
    const token = await renewed(used);
    if (token === null) return answer;
    again.headers.set("Authorization", `Bearer ${token}`);
    return fetch(again);
  }

  return createClient<paths>({ baseUrl: address, fetch: send, headers: { "Accept-Language": language } });
}
