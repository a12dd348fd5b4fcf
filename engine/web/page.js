"use strict";
// Draws the page from its data, which stand in it or are asked for. Whatever comes from a ledger becomes text, never HTML.
(() => {
  const ROW = 34, OVERSCAN = 12, TALLEST = 12e6, PRINTED = 1000, ASK_MS = 1000;
  const WORDS = { not_started: "not started", source_changed: "source changed" };
  const STATES = {
    empty: "no run yet", running: "running", unended: "has not ended", killed: "was killed", stopped: "stopped", damaged: "damaged ledger",
    finished: "finished", open: "finished, not all arrived", rolled_back: "rolled back",
  };
  const data = JSON.parse(document.getElementById("data").textContent);
  document.getElementById("data").remove();
  const at = (id) => document.getElementById(id);

  // ---- small things ----------------------------------------------------------------------------------------------

  function el(tag, props, ...inner) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(props || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name === "class") made.className = value;
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...inner.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== ""));
    return made;
  }
  const bdi = (text, cls) => el("bdi", { class: cls }, String(text));
  const count = (n) => Number(n).toLocaleString("en-US");
  const words = (name) => WORDS[name] || String(name).replaceAll("_", " ");
  const plural = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;
  const short = (x) => (x === null || x === undefined ? "–" : Number.isInteger(x) ? count(x) : String(Number(x.toPrecision(3))));
  const when = (seconds) => (seconds ? new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") : "");
  const clock = (seconds, step) => (step < 60 ? when(seconds).slice(11) : step < 86400 ? when(seconds).slice(11, 16) : when(seconds).slice(5, 10));
  const percent = (n, of) => (of ? `${(Math.floor((1000 * n) / of) / 10).toLocaleString("en-US")} %` : "–");
  function span(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds < 60) return `${short(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }
  const told = (value) => (value === null || value === undefined ? "(none)" : typeof value === "string" ? value : JSON.stringify(value));
  function put(place, made) {
    const now = [...place.children]; // what says the same stays, and so do a selection in it and the focus
    if (now.length !== made.length || made.some((one, i) => one !== now[i] && one.outerHTML !== now[i].outerHTML)) place.replaceChildren(...made);
  }
  function fill(id, ...inner) {
    const kept = at(id).querySelector("h2");
    put(at(id), [...(kept ? [kept] : []), ...inner.flat(Infinity).filter(Boolean)]);
  }
  function focused(draw) { // whoever is on a button that is drawn anew finds himself on the new one
    const had = document.activeElement, place = had && had.closest("header, section");
    const called = (one) => one.getAttribute("aria-label") || one.textContent;
    const same = () => [...place.querySelectorAll(had.localName)].filter((one) => called(one) === called(had));
    const nth = place ? same().indexOf(had) : -1;
    draw();
    if (nth < 0 || document.activeElement !== document.body) return;
    const again = same()[nth] || same()[0];
    if (again) again.focus({ preventScroll: true });
  }
  const facts = (pairs) => el("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value]) => [el("dt", null, name), el("dd", null, value)]));

  let toast = null, toastEnds = 0;
  function say(text) {
    at("said").textContent = text;
    if (toast) toast.remove();
    toast = el("div", { class: "toast", "aria-hidden": "true" }, text);
    (at("one").open ? at("one") : document.body).append(toast);
    clearTimeout(toastEnds);
    toastEnds = setTimeout(() => { if (toast) toast.remove(); toast = null; }, 1800);
  }
  async function copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch (_) { // a page that was opened from a mail may not use the clipboard so
      const area = el("textarea", { class: "hidden" });
      area.value = text;
      (at("one").open ? at("one") : document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(`${what} copied`);
  }
  const copier = (text, what) => el("button", { class: "copy", type: "button", "aria-label": `Copy ${what}`, onclick: () => copy(text, what) }, "copy");
  const command = (text) => text && el("span", { class: "cmd" }, el("code", null, text), copier(text, "command"));
  const sentence = (text) => String(text).split("`").map((part, i) => (i % 2 ? el("code", null, part) : part));
  const swatch = (outcome) => el("span", { class: `swatch s-${outcome}`, "aria-hidden": "true" });
  function table(heads, rows, props = {}) {
    const cell = (head, value) => el("td", { class: head.class, "data-th": head.text || null }, value);
    return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": props.label },
      el("table", { class: props.class },
        el("thead", null, el("tr", null, heads.map((head) => el("th", { scope: "col", class: head.class }, head.text || el("span", { class: "hidden" }, head.said))))),
        el("tbody", null, rows.map((row) => el("tr", null, row.map((value, i) => cell(heads[i], value)))))));
  }

  // ---- the rows: columns of numbers and texts, one place a prompt -------------------------------------------------

  const rows = { n: 0, columns: {}, more: new Map(), find: [], shared: { texts: [null], models: [null], changes: [null], said: [], suffixes: [] } };
  function takeRows(found) {
    if (found.since === 0) {
      Object.assign(rows, { columns: found.columns, n: found.columns.id.length, more: new Map(), find: [] });
      rows.suffixes = found.suffixes;
      for (const [place, more] of Object.entries(found.more)) rows.more.set(Number(place), more);
    } else {
      found.number.forEach((number, place) => {
        for (const name in found.columns) rows.columns[name][number] = found.columns[name][place];
        const suffix = found.columns.replica[place];
        if (typeof suffix === "number") rows.columns.replica[number] = (found.columns.name[place] || "") + found.suffixes[suffix];
        if (found.more[place]) rows.more.set(number, found.more[place]);
        else rows.more.delete(number);
        rows.find[number] = undefined;
        rows.n = Math.max(rows.n, number + 1);
      });
    }
    for (const name of ["texts", "models", "changes", "said"]) rows[name] = found[name];
  }
  const column = (name, i) => rows.columns[name][i];
  const text = (name, i) => rows.texts[column(name, i)];
  const outcome = (i) => rows.said[column("said", i)][2];
  const replica = (i) => { const r = column("replica", i); return typeof r === "number" ? (column("name", i) || "") + rows.suffixes[r] : r; };
  const model = (i) => { const pair = rows.models[column("models", i)]; return pair ? pair[1] : null; };
  const reason = (i) => text("reason", i) || (outcome(i) === "unresolved" ? "no word after its intent" : null);
  function findable(i) {
    return rows.find[i] || (rows.find[i] = [column("name", i), column("id", i), column("slug", i), column("target", i), column("target_slug", i),
      replica(i), text("collection", i), reason(i), model(i), text("verified", i)].filter(Boolean).join("\n").toLowerCase());
  }

  // ---- head and books ---------------------------------------------------------------------------------------------

  let shown = null; // the summary
  const arrived = (counts) => counts.created + counts.updated + counts.unchanged;
  function drawHead() {
    const { migration, status } = shown, now = shown.state;
    const name = migration.migration || (now === "damaged" ? "No good line" : "No run yet");
    const stop = data.live && data.live.stop && ["running", "unended"].includes(shown.state) ?
      el("button", { class: "stop", type: "button", onclick: askToStop }, "Stop the run") : "";
    const counts = status.counts, verified = status.verified || {};
    const same = migration.source === migration.target;
    put(at("head"), [
      el("div", { class: "top" }, el("span", null, data.live ? "promptferry watch" : "promptferry report"),
        el("span", { class: `badge ${now}`, id: "state" }, STATES[now] || now), status.reason && now !== "finished" ? el("span", null, words(status.reason)) : "",
        data.live ? el("span", { id: "line" }, connection) : "", stop),
      el("h1", { id: "name", dir: "auto" }, name),
      migration.migration && el("p", { class: "soft" }, bdi(migration.source || "", "id"),
        same ? ", within itself" : [" → ", bdi(migration.target || "", "id")], ` · mode ${migration.mode} · ${words(migration.selects || "")} versions`),
      el("p", { class: "next" }, shown.state === "damaged" ? shown.health.advice : shown.state === "empty" ? "Nothing was run yet: this page is empty until a run writes its ledger." :
        shown.state === "killed" ? "It was killed: run the same command again, and it goes on where that one stopped." :
        shown.state === "running" ? (data.live ? "It is running, and this page follows it." : "It was running when this page was written.") : sentence(status.next)),
      shown.state === "damaged" && shown.revision > 0 && el("p", { class: "soft" }, `All below is what the ${plural(shown.revision, "line")} before it said; what was done later is not in these numbers.`),
      shown.notes.map((note) => el("p", { class: "soft" }, note)),
      shown.state !== "empty" && el("dl", { class: "stats" }, [
        ["Selected", count(counts.selected), `of ${count(counts.listed)} listed`],
        ["On the target", count(arrived(counts)), percent(arrived(counts), counts.selected)],
        shown.state === "running" ? ["Not arrived", count(counts.failed + counts.conflicts), "failed, conflict"] :
          ["Not arrived", count(counts.failed + counts.conflicts + counts.unresolved), "failed, conflict, in doubt"],
        ["Verified the same", count(verified.same || 0), Object.keys(verified).length ? `of ${count(Object.values(verified).reduce((a, b) => a + b, 0))} compared` : "not compared"],
        ["Requests", status.requests ? count(status.requests.total) : "–", status.requests ? `${count(status.requests.throttled)} throttled, ${count(status.requests.retries)} repeated` : "told at the end"],
        ["Newest run", span(status.duration_s), `${short(status.rate)} prompts/s`],
      ].map(([title, value, more]) => el("div", null, el("dt", null, title), el("dd", null, value, " ", el("small", null, more))))),
    ].flat().filter(Boolean));
    document.title = `${shown.migration.migration || "promptferry"}: ${STATES[now] || now}`;
  }
  function drawBooks() {
    const counts = shown.status.counts, there = shown.outcomes.filter((name) => counts[name]);
    const parts = there.map((name) => `${count(counts[name])} ${words(name)}`);
    const sum = there.reduce((total, name) => total + counts[name], 0);
    const bar = el("div", { class: "bar", role: "img", "aria-label": `${count(counts.selected)} selected: ${parts.join(", ") || "none"}` },
      there.map((name) => el("span", { class: `s-${name}`, title: `${count(counts[name])} ${words(name)}` })));
    there.forEach((name, i) => { bar.children[i].style.flex = `${counts[name]} 1 0`; });
    const balance = sum === counts.selected ? `${count(counts.selected)} selected = ${parts.join(" + ") || "0"}: the books balance.` :
      `${count(counts.selected)} selected, but ${parts.join(" + ")} = ${count(sum)}: the books do NOT balance.`;
    const untold = counts.selected - shown.rows;
    const differ = shown.outcomes.filter((name) => name !== "not_started" && (shown.told[name] || 0) !== counts[name]);
    fill("books", bar,
      el("ul", { class: "legend" }, there.map((name) => el("li", null, el("button", { class: "plain", type: "button", onclick: () => showOnly({ outcome: name }) },
        swatch(name), `${count(counts[name])} ${words(name)}`), el("span", { class: "soft" }, ` ${percent(counts[name], counts.selected)}`)))),
      el("p", { id: "balance" }, balance),
      untold > 0 && el("p", { class: "soft" }, `${plural(untold, "prompt")} of these were not started and have no line in the ledger, so they are not in the table below.`),
      untold <= 0 && differ.length > 0 && el("p", { class: "soft" }, `In the table below stands what was last said of each prompt: ${shown.outcomes.filter((name) => shown.told[name]).map((name) => `${count(shown.told[name])} ${words(name)}`).join(", ")}. A prompt that an earlier run made, and that the newest one did not come to, is not started in the books.`));
  }
  function drawTodo() {
    const found = shown.reasons.filter((one) => one.outcome !== "skipped" || one.reason !== "gone");
    const left = ["running", "rolled_back", "damaged"].includes(shown.state) ? 0 : shown.status.counts.not_started;
    const rest = left > 0 && el("p", null, `${plural(left, "prompt was", "prompts were")} not started: a plain run takes ${left === 1 ? "it" : "them"} up. `, command(`promptferry run ${shown.command}`));
    if (!found.length) { fill("todo", el("p", null, `${shown.state === "running" ? "So far nothing" : "Nothing"} failed, nothing is in conflict, nothing is in doubt.`), rest); return; }
    const again = (one) => (one.outcome === "failed" && one.retriable === one.count ? "a plain run tries again" : one.outcome === "failed" && one.retriable ? `${count(one.retriable)} of them are tried again by a plain run` : "");
    fill("todo", table([{ text: "Outcome", class: "tight" }, { text: "Reason" }, { text: "Prompts", class: "num" }, { text: "What to do" }, { text: "Then type", class: "tight" }, { text: "", said: "Show them", class: "tight" }],
      found.map((one) => [[swatch(one.outcome), words(one.outcome)], [el("strong", null, words(one.reason)), el("br"), el("span", { class: "soft" }, one.meaning)], count(one.count),
        [one.advice, again(one) && el("span", { class: "soft" }, ` (${again(one)})`)], command(one.command) || "–",
        el("button", { type: "button", "aria-label": `Show prompts: ${words(one.outcome)}, ${words(one.reason)}`, onclick: () => showOnly({ outcome: one.outcome, reason: one.reason }) }, "Show")]),
      { class: "cards", label: "Why prompts did not arrive" }), rest);
  }

  // ---- charts -----------------------------------------------------------------------------------------------------

  const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000, 2592000];
  const unfolded = new Map(); // charts whose numbers are looked at, and how far down
  let chosenRun = null, plots = [], undrawn = [];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  function drawTime() {
    plots.forEach((one) => one.destroy());
    plots = [];
    const runs = shown.runs.filter((run) => run.time);
    if (!runs.length) { fill("time", el("p", null, "No run of this ledger has settled a prompt yet.")); return; }
    const run = runs.find((one) => one.run === chosenRun) || runs[0], time = run.time;
    const chooser = at("choose") || el("p", { id: "choose" }, el("label", null, "Run ", el("select", { id: "run" })));
    const choose = runs.length > 1 && chooser;
    const x = time.p50.map((_, i) => time.start + i * time.width);
    const each = time.width === 1 ? "second" : span(time.width);
    const box = el("div", { class: "charts" });
    [...at("time").children].filter((one) => one !== at("time-h") && one !== choose).forEach((one) => one.remove());
    at("time").append(...(choose && !choose.isConnected ? [choose] : []), box);
    if (choose) select("run", runs.map((one) => [one.run, `${one.run} by ${one.actor || "?"}`]), run.run, (value) => { chosenRun = value; drawTime(); });
    const names = Object.keys(time.counts);
    const total = names.reduce((sum, name) => sum + time.counts[name].reduce((a, b) => a + b, 0), 0);
    chart(box, "Prompts over time", `${plural(total, "prompt")} settled in ${span(x.length * time.width)}; each bar is ${each === "second" ? "a second" : each}.`, x,
      names.map((name) => ({ label: words(name), colour: name, values: time.counts[name] })), { stacked: true, unit: "prompts", width: time.width });
    const paces = Object.entries(time.pace);
    paces.forEach(([end, pace]) => drawPace(box, paces.length > 1 ? `Requests a second to the ${end}` : "Requests a second", pace));
    if (!paces.length) box.append(el("figure", null, el("figcaption", null, el("h3", null, "Requests a second"), throttled(run))));
    const waits = time.p95.filter((v) => v !== null);
    if (waits.length) chart(box, "Time to an answer", `From the intent in the ledger to the registry's answer, waiting for its turn included: half of the prompts within p50, 95 % within p95.`, x,
      [{ label: "p50", colour: "rate", values: time.p50 }, { label: "p95", colour: "conflicts", values: time.p95 }], { unit: "s", width: time.width });
    plots = undrawn.splice(0).map((make) => make());
  }
  function drawPace(box, title, pace) {
    const last = pace.at.length - 1, total = (values) => values.reduce((a, b) => a + b, 0), closed = (values) => [...values, values[last]];
    const paused = total(pace.paused_s), found = pace.limit.filter((limit) => limit !== null).pop();
    const sentences = `Sent${found ? `, beside the limit that was found (${short(found)} in the end)` : "; no limit was met"}. ${paused ? `Shaded: the run rested, ${span(paused)} in all. ` : ""}${plural(total(pace.throttled), "request")} throttled.`;
    chart(box, title, sentences, [...pace.at, pace.at[last] + pace.seconds[last]], [
      { label: "sent", colour: "rate", values: closed(pace.rate) }, { label: "limit", colour: "limit", values: closed(pace.limit), dash: [6, 4] },
      { label: "rested (s)", colour: "paused", values: [...pace.paused_s, 0], hidden: true },
    ], { unit: "requests/s", stepped: true, bands: pace.paused_s.map((seconds, i) => [pace.at[i], Math.min(seconds, pace.seconds[i])]) });
  }
  function throttled(run) {
    const ends = Object.entries((run.end && run.end.throttle) || {});
    if (!ends.length) return el("p", null, "Told when the run has ended.");
    return ends.map(([end, found]) => el("p", null, `${end}: ended at ${short(found.rate)} requests/s${found.limit ? `, its limit was found at ${short(found.limit)}` : ", no limit was met"}; rested ${span(found.paused_s || 0)}; a request took ${found.latency_s ? span(found.latency_s) : "–"}.`));
  }
  function chart(box, title, sentence, x, series, { unit, stacked = false, stepped = false, bands = [], width = 0 }) {
    const plot = el("div", { class: "plot", role: "img", "aria-label": `${title}. ${sentence} The numbers stand in the table below it.` });
    const numbers = () => table([{ text: "UTC" }, ...series.map((one) => ({ text: one.label, class: "num" }))], x.map((t, i) => [when(t), ...series.map((one) => (one.values[i] === null ? "–" : short(one.values[i])))]), { label: `${title}: numbers` });
    const unfold = () => {
      if (!details.open) { unfolded.delete(title); return; }
      if (details.children.length > 1) return;
      const inner = el("div", { class: "numbers", onscroll: () => unfolded.set(title, inner.scrollTop) }, numbers());
      details.append(inner);
      inner.scrollTop = unfolded.get(title) || 0;
      unfolded.set(title, inner.scrollTop);
    };
    const details = el("details", { ontoggle: unfold, open: unfolded.has(title) }, el("summary", null, `${title}: numbers as a table`));
    box.append(el("figure", null, el("figcaption", null, el("h3", null, title), el("p", null, sentence)), plot, details));
    unfold();
    const drawn = series.filter((one) => !one.hidden);
    const sums = stacked ? drawn.map((_, k) => x.map((_, i) => drawn.slice(0, k + 1).reduce((sum, one) => sum + one.values[i], 0))) : drawn.map((one) => one.values);
    const order = stacked ? drawn.map((_, k) => drawn.length - 1 - k) : drawn.map((_, k) => k); // the tallest first, so that the others stand before it
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, font: "12px system-ui, sans-serif" };
    undrawn.push(() => new uPlot({
      width: Math.max(200, plot.clientWidth), height: 170, ms: 1e-3,
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"),
      cursor: { drag: { x: false, y: false } }, legend: { live: true },
      scales: { x: { time: true, range: () => [Math.floor(x[0]), Math.ceil(Math.max(x[x.length - 1] + width, x[0] + 1))] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      padding: [null, 32, null, null],
      axes: [{ ...axis, space: 70, incrs: SECONDS, values: (_, ticks, __, ___, step) => ticks.map((t) => clock(t, step)) }, { ...axis, size: 56, values: (_, ticks) => ticks.map((v) => short(v)), label: undefined }],
      series: [{ label: "UTC", value: (_, t) => when(t) }, ...order.map((k) => ({
        label: `${drawn[k].label} (${unit})`, stroke: colour(drawn[k].colour), fill: stacked ? colour(drawn[k].colour) : undefined, width: stacked ? 0 : 1.5, dash: drawn[k].dash,
        spanGaps: true, points: { show: !stacked && drawn[k].values.filter((v) => v !== null).length < 3 }, paths: stacked ? uPlot.paths.bars({ size: [1, Infinity], gap: x.length > 60 ? 0 : 1, align: 1 }) : stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
        value: (_, v, __, i) => (i === null || i === undefined ? "–" : short(drawn[k].values[i])),
      }))],
      hooks: { drawClear: [(u) => shade(u, bands)] },
    }, [x, ...order.map((k) => sums[k])], plot)); // when all have their place, and so their width
  }
  function shade(u, bands) {
    u.ctx.fillStyle = colour("paused");
    bands.filter(([, seconds]) => seconds > 0).forEach(([from, seconds]) => {
      const left = u.valToPos(from, "x", true), right = u.valToPos(from + seconds, "x", true);
      u.ctx.fillRect(left, u.bbox.top, Math.max(right - left, 1), u.bbox.height);
    });
  }
  function drawModels() {
    const found = shown.models;
    if (!found.length) { fill("models", el("p", null, "No replica is there yet.")); return; }
    const most = Math.max(...found.map((one) => one.count));
    const name = (value) => (value === null ? el("span", { class: "soft" }, "not told") : bdi(value, "id"));
    const box = table([{ text: "Before" }, { text: "", said: "becomes" }, { text: "After" }, { text: "Prompts", class: "num" }, { text: "", said: "Share" }],
      found.map((one) => [name(one.before), "→", name(one.after), count(one.count), el("span", { class: "meter" })]), { label: "Models before and after", class: "flow" });
    box.querySelectorAll(".meter").forEach((meter, i) => { meter.style.width = `${Math.max(1, Math.round((100 * found[i].count) / most))}%`; });
    fill("models", box, found.some((one) => one.before === null) && el("p", { class: "soft" }, "The model before is told by ledgers of newer versions."));
  }

  // ---- the table of prompts ---------------------------------------------------------------------------------------

  const wanted = { q: "", outcome: "", reason: "", sort: "", down: false };
  let order = [], grid = null, body = null, tallied = null, printed = 0; // so many rows stand there for a printer, in sight or not
  const COLUMNS = [
    ["outcome", "Outcome", outcome], ["name", "Prompt", (i) => column("name", i)], ["id", "Id", (i) => column("id", i)], ["replica", "Replica", replica],
    ["target", "Id there", (i) => column("target", i)], ["model", "Model", model], ["why", "Why", reason], ["at", "When (UTC)", (i) => column("at", i)],
  ];
  function select(id, options, value, changed) { // the same element as long as there is one: it may be open
    const made = at(id) || el("select", { id });
    made.onchange = () => changed(made.value);
    options.forEach(([key, label], i) => {
      const own = made.options[i] || made.appendChild(el("option"));
      if (own.getAttribute("value") !== key) own.setAttribute("value", key);
      if (own.textContent !== label) own.textContent = label;
    });
    while (made.options.length > options.length) made.lastChild.remove();
    if (made.value !== value) made.value = value;
    return made;
  }
  function drawPrompts() {
    const had = grid ? { top: grid.scrollTop, focus: document.activeElement && document.activeElement.id } : null;
    if (!grid) {
      tallied = el("p", { class: "soft", id: "tallied", role: "status" });
      body = el("tbody");
      grid = el("div", { class: "grid", id: "grid", tabindex: "0", role: "region", "aria-label": "Table of prompts", onscroll: () => requestAnimationFrame(() => drawRows()) },
        el("table", { id: "table" }, el("thead", null, el("tr", { "aria-rowindex": "1" }, COLUMNS.map(([key, label]) => el("th", { scope: "col", class: `c-${key}`, "data-key": key, "aria-sort": "none" },
          el("button", { type: "button", onclick: () => sortBy(key) }, label))))), body));
      const search = el("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false", placeholder: "name, id, slug, model, reason", oninput: () => { wanted.q = search.value; refilter(); } });
      fill("prompts", el("div", { class: "filters" }, el("label", null, "Search", search), el("label", { id: "outcomes" }), el("label", { id: "reasons" }),
        el("button", { type: "button", id: "all", onclick: () => showOnly({}) }, "Show all")), tallied, grid);
    }
    drawFilters();
    refilter(true);
    if (had) { grid.scrollTop = had.top; drawRows(); if (had.focus && at(had.focus)) at(had.focus).focus({ preventScroll: true }); }
  }
  function drawFilters() {
    const there = shown.outcomes.filter((name) => shown.told[name] || name === wanted.outcome), whys = new Map();
    for (const one of shown.reasons) if (!wanted.outcome || one.outcome === wanted.outcome) whys.set(one.reason, (whys.get(one.reason) || 0) + one.count);
    if (wanted.reason && !whys.has(wanted.reason)) whys.set(wanted.reason, 0); // what was chosen stays so, when a run has settled all of it
    put(at("outcomes"), [el("span", null, "Outcome"), select("outcome", [["", `all (${count(shown.rows)})`], ...there.map((name) => [name, `${words(name)} (${count(shown.told[name] || 0)})`])], wanted.outcome, (value) => { wanted.outcome = value; wanted.reason = ""; drawFilters(); refilter(); })]);
    at("reasons").hidden = !whys.size;
    put(at("reasons"), [el("span", null, "Reason"), select("reason", [["", "any"], ...[...whys].map(([why, n]) => [why, `${words(why)} (${count(n)})`])], wanted.reason, (value) => { wanted.reason = value; refilter(); })]);
  }
  function showOnly({ outcome: only = "", reason: why = "" }) {
    Object.assign(wanted, { q: "", outcome: only, reason: why });
    at("search").value = "";
    drawFilters();
    refilter();
    at("prompts").scrollIntoView();
    grid.focus({ preventScroll: true });
  }
  function sortBy(key) {
    wanted.down = wanted.sort === key ? !wanted.down : false;
    wanted.sort = key;
    grid.querySelectorAll("th").forEach((th) => th.setAttribute("aria-sort", th.dataset.key !== key ? "none" : wanted.down ? "descending" : "ascending"));
    refilter();
  }
  function refilter(keep = false) {
    const parts = wanted.q.toLowerCase().split(/\s+/).filter(Boolean), found = [];
    for (let i = 0; i < rows.n; i++) {
      if (wanted.outcome && outcome(i) !== wanted.outcome) continue;
      if (wanted.reason && reason(i) !== wanted.reason) continue;
      if (parts.length) { const where = findable(i); if (!parts.every((part) => where.includes(part))) continue; }
      found.push(i);
    }
    order = sorted(found);
    tallied.textContent = order.length === rows.n ? plural(rows.n, "prompt") : `${count(order.length)} of ${plural(rows.n, "prompt")}`;
    grid.classList.toggle("short", order.length * ROW < 600);
    at("table").setAttribute("aria-rowcount", String(order.length + 1));
    if (!keep) grid.scrollTop = 0;
    drawRows();
  }
  function sorted(found) {
    const own = COLUMNS.find(([key]) => key === wanted.sort);
    if (!own) return found;
    const keys = new Map(), way = wanted.down ? -1 : 1;
    for (const i of found) { const value = own[2](i); keys.set(i, typeof value === "string" ? value.toLowerCase() : value === null || value === undefined ? "" : value); }
    return found.sort((a, b) => { const x = keys.get(a), y = keys.get(b); return x === y ? a - b : x === "" ? 1 : y === "" ? -1 : x < y ? -way : way; });
  }
  function drawRows(all = Math.min(order.length, printed)) {
    const full = order.length * ROW, height = Math.min(full, TALLEST), view = grid.clientHeight || 600;
    const fits = Math.ceil(view / ROW) + 1;
    // a browser draws no element of more than some ten million pixels: of more rows, scrolling goes in longer steps
    const top = full <= TALLEST ? Math.floor(grid.scrollTop / ROW) : Math.floor((grid.scrollTop / Math.max(1, height - view)) * Math.max(0, order.length - fits + 1));
    const first = all ? 0 : Math.max(0, top - OVERSCAN), last = Math.min(order.length, all || top + fits + OVERSCAN);
    const above = all ? 0 : full <= TALLEST ? first * ROW : Math.max(0, grid.scrollTop - (top - first) * ROW);
    const below = all ? 0 : Math.max(0, height - above - (last - first) * ROW);
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset.i : null;
    const made = [];
    for (let place = first; place < last; place++) made.push(row(order[place], place));
    if (!order.length) made.push(el("tr", null, el("td", { class: "none" }, rows.n ? "No prompt fits." : "No prompt has a line in the ledger yet.")));
    body.replaceChildren(spacer(above), ...made, spacer(below));
    if (focused !== null) { const again = body.querySelector(`button[data-i="${Number(focused)}"]`); if (again) again.focus({ preventScroll: true }); }
  }
  function spacer(height) {
    const made = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td")); // of one cell: more of them would make more columns
    made.firstChild.style.height = `${height}px`;
    return made;
  }
  function row(i, place) {
    const became = outcome(i);
    const cells = {
      outcome: [swatch(became), words(became)], name: el("button", { class: "plain", type: "button", "data-i": i, onclick: () => open(i) }, bdi(column("name", i) || column("id", i))),
      id: bdi(column("id", i), "id"), replica: bdi(replica(i) || ""), target: bdi(column("target", i) || "", "id"), model: bdi(model(i) || "", "id"), why: words(reason(i) || ""), at: when(column("at", i)),
    };
    return el("tr", { "aria-rowindex": place + 2 }, COLUMNS.map(([key]) => el("td", { class: `c-${key}` }, cells[key])));
  }

  // ---- one prompt -------------------------------------------------------------------------------------------------

  function address(template, values) {
    if (!template || !values.id) return null;
    try {
      return template.replace(/\{(id|slug|name)\}/g, (_, key) => encodeURIComponent(values[key] || ""));
    } catch (_) { return null; } // half a character can stand in no address
  }
  function open(i) {
    const dialog = at("one"), more = rows.more.get(i) || {}, became = outcome(i), links = shown.links;
    const name = column("name", i) || column("id", i);
    const known = (value, what, cls = "id") => (value ? el("span", { class: "cmd" }, bdi(value, cls), copier(value, what)) : null);
    const link = (url, what) => url && el("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, what);
    const source = { id: column("id", i), slug: column("slug", i), name: column("name", i) };
    const target = { id: column("target", i), slug: column("target_slug", i), name: replica(i) };
    const changes = [["name", column("name", i), replica(i)], ...(rows.changes[column("changes", i)] || [])].filter(([, a, b]) => b !== null && JSON.stringify(a) !== JSON.stringify(b));
    const remedy = shown.reasons.find((one) => one.outcome === became && one.reason === reason(i));
    dialog.replaceChildren(...[
      el("header", null, el("h2", { id: "one-h", dir: "auto" }, name), el("button", { type: "button", onclick: () => dialog.close(), autofocus: true }, "Close")),
      facts([
        ["Outcome", [swatch(became), words(became), reason(i) ? `: ${words(reason(i))}` : ""]],
        more.message && ["Message", bdi(more.message)], more.stage && ["At", `${words(more.stage)}${more.status ? `, answer ${more.status}` : ""}${more.code ? ` ${more.code}` : ""}`],
        more.in_the_way && ["In the way", known(more.in_the_way, "id of what is in the way")],
        remedy && ["What to do", [remedy.advice, " ", command(remedy.command)]],
        ["Source id", known(source.id, "source id")], source.slug && ["Source slug", known(source.slug, "source slug")],
        text("collection", i) && ["Collection", bdi(text("collection", i))],
        link(address(links.source, source), "source") && ["Console", link(address(links.source, source), "open the prompt at the source")],
        target.id && ["Replica", bdi(target.name || "")], target.id && ["Replica id", known(target.id, "replica id")], target.slug && ["Replica slug", known(target.slug, "replica slug")],
        link(address(links.target, target), "replica") && ["Console", link(address(links.target, target), "open the replica")],
        (text("version", i) || text("target_version", i)) && ["Version", text("target_version", i) ? `${text("version", i) || "?"} → ${text("target_version", i)}` : text("version", i)],
        text("verified", i) && ["Verified", [words(text("verified", i)), more.fields ? `: ${more.fields.join(", ")}` : ""]],
        ["Last told", `${when(column("at", i))} UTC, run ${rows.said[column("said", i)][1]}`], column("attempts", i) > 1 && ["Attempts", count(column("attempts", i))],
      ]),
      changes.length && [el("h3", null, "What changed"), table([{ text: "Field" }, { text: "Before" }, { text: "After" }], changes.map(([field, before, after]) => [field, bdi(told(before)), bdi(told(after))]), { label: "What changed" }),
        el("p", { class: "soft" }, "The text of the template is in no ledger, and so not here.")],
      more.completions && [el("h3", null, "Rendered and called"), table([{ text: "How" }, { text: "Answered" }, { text: "Model" }, { text: "Seconds", class: "num" }, { text: "Tokens", class: "num" }],
        more.completions.map((call) => [call.how || "", call.answered ? "yes" : `no: ${call.error || ""}`, bdi(call.model || ""), short(call.seconds), call.tokens === null || call.tokens === undefined ? "–" : count(call.tokens)]), { label: "Calls" })],
    ].flat().filter(Boolean));
    dialog.showModal();
  }

  // ---- after the run ----------------------------------------------------------------------------------------------

  function drawProof() {
    const { verified, made, completions, answers, published, rolled_back: back } = shown.proof, m = shown.command;
    const listed = (found) => Object.entries(found).filter(([, n]) => n).map(([name, n]) => `${count(n)} ${words(name)}`).join(", ");
    const compared = Object.values(verified).reduce((a, b) => a + b, 0);
    const bad = compared - (verified.same || 0);
    fill("proof", facts([
      ["Compared with its source", compared ? [`${listed(verified)}${made > compared ? `; ${count(made - compared)} not compared since they were written` : ""}`, bad ? el("strong", null, " – look at what differs") : ""] : ["nothing yet ", command(`promptferry verify ${m}`)]],
      ["Rendered and called", Object.keys(completions).length ? Object.entries(completions).map(([how, n]) => `${how}: ${count(n.answered)} answered, ${count(n.failed)} not`).join("; ") : ["nothing yet ", command(`promptferry verify ${m} --render`)]],
      ["Answers compared", [answers ? `${listed(answers.counts) || "none"}, at ${when(answers.at)}; side by side on a page of their own ` : "nothing yet ", command(`promptferry compare ${m} --html answers.html`)]],
      Object.keys(published).length && ["Published", listed(published)],
      Object.keys(back).length && ["Rolled back", listed(back)],
    ]));
  }
  function drawParts() {
    at("parts").hidden = !shown.parts.length;
    fill("parts", table([{ text: "What" }, { text: "At the source" }, { text: "There" }, { text: "Id" }, { text: "State" }],
      shown.parts.map((one) => [one.what, bdi(one.source_slug || ""), bdi(one.target_slug || one.name || ""), bdi(one.target_id || "", "id"), [words(one.result || one.kind), one.message ? `: ${one.message}` : ""]]), { class: "cards", label: "Made besides prompts" }));
  }
  function drawRuns() {
    if (!shown.runs.length) { fill("runs", el("p", null, "No run yet.")); return; }
    const by = (run) => (run.ledgers ? `merged from ${run.ledgers.join(", ")}` : `${run.actor || "?"} on ${run.host || "?"}`);
    const ended = (run, i) => { const end = run.end; return end ? `${words(end.reason || "")} (${end.exit_code})` : i === 0 && shown.state === "running" ? "goes on" : i === 0 && ["unended", "killed"].includes(shown.state) ? STATES[shown.state] : "no end is told: killed, or compacted"; };
    fill("runs", table([{ text: "Begun (UTC)", class: "tight" }, { text: "Run", class: "tight" }, { text: "By" }, { text: "Why" }, { text: "Approved by" }, { text: "Ended" }, { text: "Did", class: "" }, { text: "Took", class: "num" }],
      shown.runs.map((run, i) => [String(run.ts).slice(0, 19).replace("T", " "), el("span", { class: "id" }, run.run), bdi(by(run)), bdi([run.reason, run.shard ? `shard ${run.shard}` : ""].filter(Boolean).join("; ") || "–"), bdi((run.approvals || []).join(", ") || "–"), ended(run, i),
        Object.entries((run.end && run.end.this_run) || {}).filter(([, n]) => n).map(([name, n]) => `${count(n)} ${words(name)}`).join(", ") || "–", span(run.end && run.end.duration_s)]), { class: "cards", label: "Runs" }),
      shown.health.runs > shown.runs.length && el("p", { class: "soft" }, `The newest ${count(shown.runs.length)} of ${count(shown.health.runs)} runs.`));
  }
  function drawAsked() {
    const run = shown.migration;
    fill("asked", facts([
      ...shown.asked.map(([key, value]) => [key, bdi(value, "id")]),
      run.rules && ["Digest of the rules", el("span", { class: "cmd" }, el("span", { class: "id" }, run.rules), copier(run.rules, "digest"))],
      run.version && ["promptferry", run.version],
    ]), !shown.asked.length && el("p", { class: "soft" }, "A ledger holds a digest of the rules; give the migration file in place of the ledger to have them here."));
  }
  function drawHealth() {
    const found = shown.health;
    fill("health", facts([
      ["File", el("span", { class: "cmd" }, bdi(found.ledger, "id"), copier(found.ledger, "path"))],
      ["Health", found.there ? [el("strong", null, found.verdict), ` – ${found.advice || "no line yet"}`] : "there is no file yet"],
      ["Good lines", `${count(found.lines)} in ${count(found.bytes)} bytes`], ["Runs", count(found.runs)],
      ["Prompts in doubt", found.in_doubt ? `${count(found.in_doubt)}: the next run looks them up` : "none"],
      ["Look again", command(found.check)],
    ]));
  }
  function draw() {
    at("main").hidden = false;
    for (const id of ["books", "todo", "time", "models", "prompts", "proof", "runs"]) at(id).hidden = shown.state === "empty";
    focused(() => { drawHead(); drawBooks(); drawTodo(); drawTime(); drawModels(); drawPrompts(); drawProof(); drawParts(); drawRuns(); drawAsked(); drawHealth(); });
    at("foot").replaceChildren(el("p", null, `${shown.now ? `As of ${when(shown.now)} UTC, l` : "L"}ine ${count(shown.revision)} of the ledger. No text of a template and no key is in it. Nothing on this page is loaded from elsewhere.`));
    document.body.dataset.drawn = `${shown.generation}.${shown.revision}`;
  }

  // ---- live -------------------------------------------------------------------------------------------------------

  let connection = "connecting", asking = false, due = null, asked = 0, have = { revision: 0, generation: -1, look: 0 };
  const beside = (path, more = "") => {
    const own = new URLSearchParams(location.search);
    for (const [key, value] of new URLSearchParams(more)) own.set(key, value);
    return `${path}${own.size ? `?${own}` : ""}`;
  };
  async function answer(path, more) {
    const response = await fetch(beside(path, more), { cache: "no-store" });
    if (!response.ok) throw new Error(`${response.status}`);
    return response.json();
  }
  async function ask() {
    if (asking) return;
    asking = true;
    try {
      while (due && due.look !== have.look) {
        const look = due.look;
        await new Promise((done) => setTimeout(done, Math.max(0, asked + ASK_MS - Date.now())));
        asked = Date.now();
        const summary = await answer("view");
        let found = await answer("rows", `since=${summary.generation === have.generation ? have.revision : 0}`);
        if (found.generation !== summary.generation) continue;
        if (found.since && found.since !== have.revision) found = await answer("rows", "since=0");
        takeRows(found);
        shown = summary;
        have = { revision: found.revision, generation: found.generation, look };
        draw();
      }
    } catch (error) {
      connected(`not answered (${error.message})`);
    } finally {
      asking = false;
    }
  }
  function connected(how) {
    connection = how;
    if (at("line")) at("line").textContent = how;
  }
  function watch() {
    const events = new EventSource(beside("events"));
    events.onopen = () => connected("live");
    events.onerror = () => connected(events.readyState === EventSource.CLOSED ? "no longer served" : "connecting again");
    events.onmessage = (event) => { due = JSON.parse(event.data); connected("live"); ask(); };
    events.addEventListener("gone", () => { events.close(); connected("no longer served"); });
  }
  async function askToStop() {
    if (!confirm("Stop the run? It takes no new work, lets what is in flight end, and the same command goes on later.")) return;
    try {
      const response = await fetch(beside("stop"), { method: "POST", headers: { "X-Promptferry": "stop" } });
      say(response.ok ? "The run was asked to stop" : await response.text());
    } catch (error) { say(`The run could not be asked (${error.message})`); }
  }

  // ---- all of it --------------------------------------------------------------------------------------------------

  addEventListener("beforeprint", () => { if (!grid) return; printed = PRINTED; drawRows(); tallied.textContent += order.length > PRINTED ? `; the first ${count(PRINTED)} are printed` : ""; });
  addEventListener("afterprint", () => { printed = 0; if (grid) refilter(true); });
  at("one").addEventListener("click", (event) => { if (event.target === at("one")) at("one").close(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (shown) drawTime(); });
  let width = 0;
  new ResizeObserver(() => {
    if (width && Math.abs(document.body.clientWidth - width) > 1) { plots.forEach((one) => one.setSize({ width: Math.max(200, one.root.parentElement.clientWidth), height: 170 })); if (grid) drawRows(); }
    width = document.body.clientWidth;
  }).observe(document.body);
  if (data.summary) {
    shown = data.summary;
    takeRows(data.rows);
    data.rows = data.summary = null;
    draw();
    const build = (from = 0) => { const end = Math.min(rows.n, from + 20000); for (let i = from; i < end; i++) findable(i); if (end < rows.n) setTimeout(build, 0, end); };
    setTimeout(build, 50);
  } else {
    at("head").replaceChildren(el("div", { class: "top" }, "promptferry watch", el("span", { id: "line" }, connection)), el("h1", null, "Waiting for the ledger"));
    watch();
  }
})();
