/** The one connection of this page: who is logged in, on which device, and what a refusal means to a person. */

import { connect, inStorage, newKey, Refused, type components } from "@heika/client";

export { follow, newKey, ok, Refused } from "@heika/client";
export type Shapes = components["schemas"];

declare const HEIKA_API: string;

/** Shared by the tabs of this origin. Whoever runs a script here could read it: the page's policy lets in none but its own. */
export const session = inStorage();
export const heika = connect(HEIKA_API, session);

const kept = localStorage.getItem("heika.visitor") ?? newKey();
localStorage.setItem("heika.visitor", kept);
/** This device, as invitations and contests know it. */
export const visitor = kept;

heika.use({ onRequest: ({ request }) => request.headers.set("X-Visitor-Id", visitor) });

/** A sentence for whoever is holding the phone. */
export function sentence(failure: unknown): string {
  if (failure instanceof Refused) {
    return failure.problem.errors?.[0]?.msg ?? failure.message;
  }
  if (failure instanceof TypeError) return "网络不通，请检查网络后再试。";
  console.error(failure);
  return "页面出了点问题，请刷新后再试。";
}

/** Whether the session is over: its tokens are too old, or it was ended elsewhere. */
export const isOver = (failure: unknown): boolean =>
  failure instanceof Refused && failure.code === "not_authenticated" && session.read() === null;

/** Whether nobody waits for it any more: the screen that asked was left. */
export const isLeft = (failure: unknown): boolean => failure instanceof DOMException && failure.name === "AbortError";

/** Where the next step of a refusal is taken. */
export function nextStep(failure: unknown): { words: string; to: string } | null {
  if (!(failure instanceof Refused)) return null;
  if (failure.code === "not_authenticated") return { words: "去登录", to: "#/login" };
  if (failure.problem.action === "buy_membership") return { words: "开通黑卡", to: "#/card" };
  return null;
}

/** After how many seconds the same call is worth another try by itself; null when a person has to decide. */
export function waits(failure: unknown): number | null {
  if (!(failure instanceof Refused)) return null;
  if (failure.retryAfter !== null) return Math.max(1, failure.retryAfter);
  return failure.status >= 502 ? 3 : null;
}
