/** A recording, read in parts as it is watched; when its link has run out, a fresh one takes it on from there. */

import { h } from "./dom.js";
import { isLeft, sentence, type Shapes } from "./heika.js";
import { notice } from "./page.js";

type Playback = Shapes["Playback"];

export function player(label: string, link: Playback, again: () => Promise<Playback | null>): HTMLVideoElement {
  // What is heard and not seen is what the sandbox's recordings are; films are shown in the same place.
  const video = h("video", { class: "player", "aria-label": label, src: link.url, controls: true, playsinline: true, preload: "metadata" });
  let renewed = false;
  video.addEventListener("playing", () => void (renewed = false));
  video.addEventListener("error", () => void goOn().catch((failure: unknown) => {
    if (!isLeft(failure)) notice(sentence(failure));
  }));

  async function goOn(): Promise<void> {
    const first = !renewed;
    renewed = true;
    const fresh = first ? await again() : null;
    if (fresh === null) return notice("视频暂时放不了，请稍后再试。");
    const at = video.currentTime;
    const going = !video.paused;
    video.src = fresh.url;
    video.currentTime = at;
    if (going) await video.play();
  }

  return video;
}

/** What of a recording was played since this was asked last, in whole seconds. */
export function played(video: HTMLVideoElement): () => [number, number][] {
  let spans: [number, number][] = [];
  let from: number | null = null;
  let at = 0;
  const end = (): void => {
    if (from !== null && Math.round(at) > Math.round(from)) spans.push([Math.round(from), Math.round(at)]);
    from = null;
  };
  video.addEventListener("playing", () => void (from = at = video.currentTime));
  video.addEventListener("timeupdate", () => {
    if (from !== null && !video.seeking) at = video.currentTime;
  });
  for (const stop of ["pause", "seeking", "waiting", "ended"]) video.addEventListener(stop, end);
  return () => {
    const going = from !== null;
    end();
    if (going) from = at;
    const told = spans;
    spans = [];
    return told;
  };
}
