/** Questions of a live lesson: asked here, raised by others, answered, and all of it as it happens. */

import { fill, h, icon } from "../dom.js";
import { heika, ok, type Shapes } from "../heika.js";
import { press } from "../page.js";

type Question = Shapes["QuestionOut"];

export interface Questions {
  readonly form: HTMLElement;
  readonly list: HTMLElement;
  load(): Promise<void>;
  put(question: Question): void;
  answered(answer: Shapes["AnswerOut"] & { question_id: string }): void;
}

export function questionsOf(lesson_id: string, left: AbortSignal): Questions {
  const held = new Map<string, Question>();
  const raised = new Set<string>();
  const list = h("ul", { class: "questions", "aria-live": "polite" });
  const words = h("input", { name: "question", "aria-label": "你的问题", placeholder: "想问老师什么？", maxlength: 500, required: true });
  const send = h("button", { type: "submit" }, "提问");
  const form = h("form", { class: "row", onsubmit: (event) => {
    event.preventDefault();
    void press(send, async () => {
      const params = { path: { lesson_id } };
      put(await ok(heika.POST("/v1/live-lessons/{lesson_id}/questions", { params, body: { text: words.value } })));
      words.value = "";
    });
  } }, words, send);

  function draw(): void {
    const ranked = [...held.values()].sort((one, other) =>
      Number(other.priority) - Number(one.priority) || other.upvotes - one.upvotes || one.id.localeCompare(other.id));
    fill(list, ...(ranked.length > 0 ? ranked.map(row) : [h("li", { class: "soft" }, "还没有人提问，来做第一个。")]));
  }

  function row(question: Question): HTMLElement {
    const mine = raised.has(question.id);
    const up = h("button", { class: "vote small", "aria-pressed": String(mine), "aria-label": `想问同样的，${question.upvotes} 人` },
      icon("up"), h("span", {}, question.upvotes));
    up.addEventListener("click", () => void press(up, async () => {
      const raise = await ok(heika.PUT("/v1/questions/{question_id}/upvote", { params: { path: { question_id: question.id } } }));
      raised.add(question.id);
      put(raise);
    }));
    return h("li", { class: "panel question" },
      h("div", {}, h("p", {}, question.text), h("p", { class: "soft small" }, question.asked_by.nickname ?? "一位同学"),
        ...question.answers.map((answer) => h("p", { class: "answer" }, h("strong", {}, answer.by.nickname ?? "回答"), ` ${answer.text}`))),
      up);
  }

  function put(question: Question): void {
    held.set(question.id, question);
    draw();
  }

  return {
    form,
    list,
    put,
    async load() {
      const query = { limit: 50 };
      const { items } = await ok(heika.GET("/v1/live-lessons/{lesson_id}/questions", { params: { path: { lesson_id }, query }, signal: left }));
      for (const question of items) held.set(question.id, question);
      draw();
    },
    answered({ question_id, ...answer }) {
      const question = held.get(question_id);
      if (question === undefined || question.answers.some((known) => known.id === answer.id)) return;
      put({ ...question, answers: [...question.answers, answer] });
    },
  };
}
