/** Server-sent events over fetch: the browser's EventSource cannot send the token that says who is there. */

import { Refused } from "./index.js";

/** One event: its name, its data, and the number by which the stream goes on after it. */
export interface Piece {
  readonly id: string;
  readonly event: string;
  readonly data: unknown;
}

type Stream = { data?: unknown; error?: unknown; response: Response };

/** Heika sends at least a comment every 15 s: a stream that is silent for longer is one whose other end is gone. */
const SILENT_MS = 45_000;
const LONGEST_MS = 15_000;

/**
 * What a stream tells, until it is over or `signal` ends it. A stream that breaks is opened again where it broke off; one
 * that is refused for good throws Refused.
 *
 *     for await (const { event, data } of follow((header) => heika.GET("/v1/orders/{order_id}/events",
 *       { params: { path: { order_id }, header }, parseAs: "stream", signal }), signal)) ...
 */
export async function* follow(
  open: (header: { "last-event-id"?: string }) => Promise<Stream>,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  let last = "";
  let waits = 0;
  while (!signal.aborted) {
    try {
      const { data, error, response } = await open(last === "" ? {} : { "last-event-id": last });
      // There is nothing more to come.
      if (response.status === 204) return;
      if (!response.ok) throw new Refused(response.status, error, response.headers.get("Retry-After"));
      for await (const piece of pieces(data as ReadableStream<Uint8Array>, signal)) {
        waits = 0;
        if (piece.id !== "") last = piece.id;
        yield piece;
      }
    } catch (failure) {
      if (signal.aborted) return;
      const known = failure instanceof Refused;
      if (known && failure.status < 500 && failure.retryAfter === null) throw failure;
      await pause(known && failure.retryAfter !== null ? failure.retryAfter * 1000 : 0, signal);
    }
    // Many pages lose their stream in the same moment, and do not all come back in the same one.
    await pause(Math.min(LONGEST_MS, 500 * 2 ** waits++) * (0.5 + Math.random() / 2), signal);
  }
}

async function* pieces(stream: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<Piece> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let held = "";
  try {
    while (!signal.aborted) {
      const { done, value } = await soon(reader.read());
      if (done) return;
      held += decoder.decode(value, { stream: true });
      const blocks = held.split("\n\n");
      held = blocks.pop() ?? "";
      for (const block of blocks) {
        const piece = read(block);
        if (piece !== null) yield piece;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function read(block: string): Piece | null {
  const fields = new Map<string, string>();
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    // A comment, which only keeps the connection open.
    if (at <= 0) continue;
    fields.set(line.slice(0, at), line.slice(at + 1).replace(/^ /, ""));
  }
  const told = fields.get("data");
  if (told === undefined) return null;
  return { id: fields.get("id") ?? "", event: fields.get("event") ?? "message", data: JSON.parse(told) as unknown };
}

async function soon<Read>(reading: Promise<Read>): Promise<Read> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silent = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new TypeError("the stream is silent")), SILENT_MS);
  });
  try {
    return await Promise.race([reading, silent]);
  } finally {
    clearTimeout(timer);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
    function end(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      done();
    }
  });
}
