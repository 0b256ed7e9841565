/** Heika for H5: every call typed, a session that renews itself, one key for each POST, refusals as exceptions. */

import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export { follow, type Piece } from "./events.js";
export { inStorage } from "./storage.js";
export type { components, paths };
export type Problem = components["schemas"]["Problem"];
export type Tokens = Pick<components["schemas"]["TokenPair"], "access_token" | "refresh_token">;

/** Where a session is kept between visits. */
export interface Keeper {
  read(): Tokens | null;
  write(tokens: Tokens | null): void;
  /** Exchange the refresh token `used`, once for all who share this session: whoever comes second gets what came of it. */
  once?(used: string, exchange: () => Promise<Tokens | Response>): Promise<Tokens | Response>;
}

/** Heika says no: `code` is stable, the message says what to do next. */
export class Refused extends Error {
  readonly code: string;
  readonly problem: Partial<Problem>;
  /** Seconds after which the same call may be sent again; null where waiting alone does not help. */
  readonly retryAfter: number | null;

  constructor(
    readonly status: number,
    told: unknown,
    retryAfter: string | null = null,
  ) {
    const problem: Partial<Problem> = typeof told === "object" && told !== null ? told : {};
    super(problem.detail ?? `HTTP ${status}`);
    this.name = "Refused";
    this.problem = problem;
    this.code = problem.code ?? `http_${status}`;
    this.retryAfter = retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
  }
}

/** What a call answers; Refused when it is refused. `await ok(heika.GET("/v1/plans"))` */
export async function ok<Data>(call: Promise<{ data?: Data; error?: unknown; response: Response }>): Promise<Data> {
  const { data, error, response } = await call;
  if (!response.ok) throw new Refused(response.status, error, response.headers.get("Retry-After"));
  return data as Data;
}

/** A session for as long as the page is open. */
export function inMemory(): Keeper {
  let kept: Tokens | null = null;
  return { read: () => kept, write: (tokens) => void (kept = tokens) };
}

/** A value for `Idempotency-Key`: keep it until the call is answered, and it takes effect once however often it is sent. */
export function newKey(): string {
  // crypto.randomUUID is missing on pages without https.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The calls of one address, in the name of whoever `session` knows. */
export function connect(address: string, session: Keeper = inMemory(), language = "zh-CN"): Client<paths> {
  const renewing = new Map<string, Promise<string | Response | null>>();

  async function exchange(refresh_token: string): Promise<Tokens | Response> {
    const answer = await fetch(`${address}/v1/auth/refresh`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept-Language": language },
      body: JSON.stringify({ refresh_token }),
    });
    if (!answer.ok) return answer;
    const fresh = (await answer.json()) as Tokens;
    return { access_token: fresh.access_token, refresh_token: fresh.refresh_token };
  }

  /** The token after this one; null when the session is over, and the answer of a Heika that cannot tell just now. */
  async function next(used: string): Promise<string | Response | null> {
    const held = session.read();
    // Another tab was faster, or somebody logged out.
    if (held === null || held.access_token !== used) return held?.access_token ?? null;
    const ask = () => exchange(held.refresh_token);
    const fresh = await (session.once ? session.once(held.refresh_token, ask) : ask());
    if (!(fresh instanceof Response)) {
      session.write(fresh);
      return fresh.access_token;
    }
    if (![400, 401, 403].includes(fresh.status)) return fresh;
    // The session is over: ended elsewhere, or too old. Somebody may have logged in anew meanwhile.
    if (session.read()?.refresh_token === held.refresh_token) session.write(null);
    return session.read()?.access_token ?? null;
  }

  // A refresh token is good once: calls of this page share one exchange, and tabs take turns.
  function renewed(used: string): Promise<string | Response | null> {
    const turn = renewing.get(used) ?? next(used).finally(() => renewing.delete(used));
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
    if (token instanceof Response) return token.clone();
    again.headers.set("Authorization", `Bearer ${token}`);
    return fetch(again);
  }

  return createClient<paths>({ baseUrl: address, fetch: send, headers: { "Accept-Language": language } });
}
