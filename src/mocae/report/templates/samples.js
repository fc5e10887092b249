// All answers: unpacked when the list is first opened, filtered in memory, shown 50 at a time, always as text.
for (const box of document.querySelectorAll("details.samples")) {
  const form = box.querySelector(".search"), results = box.querySelector(".results");
  const onward = box.querySelector(".onward"), status = box.querySelector(".found");
  const plain = (text) => text.toLowerCase().replace(/\s+/g, " ").trim();
  const make = (tag, name, text) => Object.assign(document.createElement(tag), { className: name, textContent: text });
  let answers = [], matches = [], shown = 0;

  const unpack = async () => {
    const bytes = Uint8Array.from(atob(box.querySelector(".packed").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const prompts = JSON.parse(await new Response(stream).text());
    answers = prompts.flatMap((prompt) => prompt.answers.map((answer) => ({
      ...answer, of: prompt, axis: prompt.axis, differ: prompt.differ, text_: plain([prompt.prompt, prompt.kind, answer.text].join(" ")),
    })));
    for (const name of ["axis", "system"]) {
      for (const value of new Set(answers.map((answer) => answer[name]))) form.elements[name].add(new Option(value, value));
    }
    form.hidden = false;
  };

  const more = () => {
    for (const answer of matches.slice(shown, shown + 50)) {
      if (results.lastPrompt !== answer.of) {
        results.lastPrompt = answer.of;
        const prompt = make("blockquote", "prompt", answer.of.prompt);
        prompt.dir = "auto";
        prompt.prepend(make("small", "probe", `${answer.axis} · ${answer.of.kind}`));
        results.append(prompt, make("div", "answers", ""));
      }
      const verdict = { true: ["yes", "✓ acceptable"], false: ["no", "✗ not acceptable"], untold: ["", ""] }[answer.ok] || ["unscored", "? unscored"];
      const card = make("div", `answer ${verdict[0]}`, ""), head = make("h4", "", answer.system);
      const said = make("p", "said", answer.text || "(empty answer)");
      said.dir = "auto";
      head.append(make("span", "verdict", verdict[1]));
      card.append(head, said, make("p", "why", [answer.verdicts, answer.weights].filter(Boolean).join(" · weights ")));
      results.lastElementChild.append(card);
    }
    shown = Math.min(shown + 50, matches.length);
    status.textContent = `${matches.length} of ${answers.length} answers match; ${shown} shown.`;
    onward.hidden = shown === matches.length;
  };

  const search = () => {
    const asked = form.elements, words = plain(asked.text.value);
    matches = answers.filter((answer) =>
      (!asked.axis.value || answer.axis === asked.axis.value) && (!asked.system.value || answer.system === asked.system.value)
      && (!asked.ok.value || String(answer.ok) === asked.ok.value) && (!asked.differ.checked || answer.differ)
      && (!asked.split.checked || answer.split) && answer.text_.includes(words));
    results.replaceChildren();
    results.lastPrompt = null;
    shown = 0;
    more();
  };

  const ready = new Promise((done) => box.addEventListener("toggle", () => done(unpack().then(search)), { once: true }));
  ready.catch(() => { status.textContent = "This browser cannot unpack the answers; samples.jsonl beside this page has them as text."; });
  form.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  onward.addEventListener("click", more);
  for (const link of document.querySelectorAll("a[data-find]")) {
    link.addEventListener("click", () => {
      box.open = true;
      ready.then(() => {
        form.reset();
        form.elements.text.value = link.dataset.find;
        search();
        box.scrollIntoView();
      });
    });
  }
}
