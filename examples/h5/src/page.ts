/** What a screen is given, and what happens to its buttons and its failures. */

import { fill, h } from "./dom.js";
import { isLeft, isOver, nextStep, sentence, waits } from "./heika.js";

/** One visit of one screen; `left` ends its streams and timers. */
export interface Page {
  readonly words: string[];
  readonly left: AbortSignal;
  title(text: string): void;
  show(...nodes: (Node | null | false)[]): void;
}

export type Screen = (page: Page) => Promise<void>;

const LONGEST_WAIT_S = 60;

export function go(to: string): void {
  if (location.hash === to) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = to;
}

/** Say something for a few seconds; a screen reader says it at once. */
export function notice(text: string, step: { words: string; to: string } | null = null): void {
  const place = document.getElementById("notice");
  if (place === null) return;
  const said = h("div", { class: "said" }, h("span", {}, text), step && h("a", { href: step.to }, step.words));
  fill(place, said);
  setTimeout(() => said.remove(), 6000);
}

/**
 * Press a button: it rests until there is an answer, and for as many seconds as the action says. A refusal is said; one
 * that asks to wait is counted down on the button.
 */
export async function press(button: HTMLButtonElement, action: () => Promise<number | void>): Promise<void> {
  if (button.disabled) return;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const rests = await action();
    if (typeof rests === "number") void countDown(button, rests);
    else button.disabled = false;
  } catch (failure) {
    if (isLeft(failure)) return;
    if (isOver(failure)) return go(`#/login/${location.hash.replace(/^#\//, "")}`);
    notice(sentence(failure), nextStep(failure));
    const seconds = waits(failure);
    if (seconds === null) button.disabled = false;
    else void countDown(button, seconds);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

/** Let a button rest for so many seconds, and say how many are left. */
export async function countDown(button: HTMLButtonElement, seconds: number): Promise<void> {
  const words = [...button.childNodes];
  button.disabled = true;
  for (let left = Math.ceil(seconds); left > 0 && button.isConnected; left--) {
    fill(button, `${left} 秒后可再试`);
    await new Promise((done) => setTimeout(done, 1000));
  }
  button.replaceChildren(...words);
  button.disabled = false;
}

/** What stands in place of a screen that could not be had; it tries again by itself where waiting helps. */
export function trouble(failure: unknown, again: () => void, left: AbortSignal): HTMLElement {
  const step = nextStep(failure);
  const retry = h("button", { class: "plain", onclick: again }, "再试一次");
  const seconds = waits(failure);
  if (seconds !== null && seconds <= LONGEST_WAIT_S) {
    const timer = setTimeout(again, seconds * 1000);
    left.addEventListener("abort", () => clearTimeout(timer));
    void countDown(retry, seconds);
  } else if (failure instanceof TypeError) {
    window.addEventListener("online", again, { signal: left, once: true });
  }
  return h(
    "section",
    { class: "trouble", role: "alert" },
    h("h1", { tabindex: -1 }, "稍等一下"),
    h("p", {}, sentence(failure)),
    step && h("a", { class: "button", href: step.to }, step.words),
    retry,
  );
}
