// What a page cannot do without a script. Every page but the sight of a secret works without this file.

// A button that copies the text of the element it is for, and says so.
customElements.define("copy-button", class extends HTMLElement {
  connectedCallback() {
    const button = this.querySelector("button"), span = button.querySelector("span"), label = button.getAttribute("aria-label");
    const say = (text, name) => { span.textContent = text; button.setAttribute("aria-label", name); };
    button.addEventListener("click", async () => {
      const text = document.getElementById(this.getAttribute("for")).textContent.replace(/\n$/, "");
      try {
        await navigator.clipboard.writeText(text);
        say("Copied", "Copied");
        this.dispatchEvent(new CustomEvent("copied", { bubbles: true }));
      } catch {
        getSelection().selectAllChildren(document.getElementById(this.getAttribute("for")));
        say("Press Ctrl+C", "Press Ctrl+C");
      }
      setTimeout(() => say("Copy", label), 2000);
    });
  }
});

// A button that saves the text of an element as a file.
customElements.define("save-button", class extends HTMLElement {
  connectedCallback() {
    const button = this.querySelector("button");
    button.hidden = false;
    button.addEventListener("click", () => {
      const text = document.getElementById(this.getAttribute("for")).textContent;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
      link.download = this.getAttribute("name");
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
});

// Sections shown one at a time.
customElements.define("tab-set", class extends HTMLElement {
  connectedCallback() {
    const sections = [...this.querySelectorAll(":scope > section")];
    const row = document.createElement("div");
    row.className = "tabs-row";
    row.setAttribute("role", "tablist");
    const tabs = sections.map((section, place) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.textContent = section.dataset.tab;
      tab.setAttribute("role", "tab");
      section.id ||= `tab-${Math.random().toString(36).slice(2)}`;
      section.setAttribute("role", "tabpanel");
      section.setAttribute("aria-label", section.dataset.tab);
      section.querySelector("h3").hidden = true;
      tab.setAttribute("aria-controls", section.id);
      tab.addEventListener("click", () => choose(place));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) { const next = (place + step + tabs.length) % tabs.length; choose(next); tabs[next].focus(); }
      });
      row.append(tab);
      return tab;
    });
    const choose = (chosen) => sections.forEach((section, place) => {
      section.hidden = place !== chosen;
      tabs[place].setAttribute("aria-selected", String(place === chosen));
      tabs[place].tabIndex = place === chosen ? 0 : -1;
    });
    this.prepend(row);
    choose(0);
  }
});

// One verification with what was just shown.
customElements.define("test-button", class extends HTMLElement {
  connectedCallback() {
    const button = this.querySelector("button"), output = this.querySelector("output");
    button.hidden = false;
    button.addEventListener("click", async () => {
      const body = new URLSearchParams({ csrf: this.getAttribute("csrf") });
      const lines = document.getElementById(this.getAttribute("headers")).textContent.trim().split("\n");
      lines.forEach((line) => body.append("header", line));
      output.textContent = "…";
      try {
        const answer = await (await fetch(this.getAttribute("action"), { method: "POST", body })).json();
        output.textContent = answer.valid ? "VALID" : answer.code;
      } catch {
        output.textContent = "no answer";
      }
    });
  }
});

// While a secret is on the screen, leaving asks first, until somebody has said that it is saved.
customElements.define("reveal-guard", class extends HTMLElement {
  connectedCallback() {
    const saved = this.querySelector("#saved"), go = this.querySelector("#continue");
    const ask = (event) => { event.preventDefault(); event.returnValue = ""; };
    const show = () => {
      go.disabled = !saved.checked;
      if (saved.checked) removeEventListener("beforeunload", ask); else addEventListener("beforeunload", ask);
    };
    saved.addEventListener("change", show);
    show();
    // Once left, the secret is gone: neither Back nor a copy of the page brings it again.
    addEventListener("pagehide", () => this.querySelectorAll(".secret, pre").forEach((one) => { one.textContent = ""; }));
  }
});

// Scopes are found by what they are called; what is ticked stays ticked, in sight or not.
customElements.define("scope-picker", class extends HTMLElement {
  connectedCallback() {
    const search = this.querySelector(".search");
    if (!search) return;
    const input = search.querySelector("input"), told = search.querySelector("[role=status]");
    search.hidden = false;
    const fits = (label, about, words) => {
      const text = `${about} ${label.textContent} ${label.querySelector("input").value}`.toLowerCase();
      return words.every((word) => text.includes(word));
    };
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      for (const row of this.querySelectorAll("tbody tr")) {
        const about = row.querySelector("th").textContent, labels = [...row.querySelectorAll("label")];
        labels.forEach((label) => { label.hidden = !fits(label, about, words); });
        const left = labels.filter((label) => !label.hidden).length;
        row.hidden = left === 0;
        found += left;
      }
      told.textContent = words.length ? (found ? `${found} found` : "Nothing is called so.") : "";
    });
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
  }
});

// A button ticks the scopes that are often given together, and takes them away again where all of them are ticked.
customElements.define("scope-presets", class extends HTMLElement {
  connectedCallback() {
    this.hidden = false;
    const field = this.closest("fieldset"), buttons = [...this.querySelectorAll("button")];
    const boxes = (button) => {
      const names = button.dataset.scopes.split(" ");
      return [...field.querySelectorAll("input[name=scopes]")].filter((box) => names.includes(box.value));
    };
    const restricted = () => field.querySelector("input[name=access][value=restricted]");
    const whole = (button) => restricted().checked && boxes(button).every((box) => box.checked);
    const tell = () => buttons.forEach((button) => button.setAttribute("aria-pressed", String(whole(button))));
    buttons.forEach((button) => button.addEventListener("click", () => {
      const ticked = !whole(button);
      restricted().checked = true;
      boxes(button).forEach((box) => { box.checked = ticked; });
      field.dispatchEvent(new Event("change"));
    }));
    field.addEventListener("change", tell);
    tell();
  }
});

// What a key will be able to do, said while it is chosen.
const access = document.getElementById("access");
if (access) {
  const says = document.getElementById("says"), warns = document.getElementById("warns");
  const first = says.textContent.match(/^(This|Choose what this) (.+?) can/);
  const noun = first ? first[2] : "key";
  const matrix = access.querySelector("scope-picker");
  const tell = () => {
    const chosen = access.querySelector("input[name=access]:checked")?.value;
    const ticked = [...access.querySelectorAll("input[name=scopes]:checked")].map((one) => one.dataset.title);
    const everything = [...access.querySelectorAll("input[name=scopes]")];
    if (matrix) matrix.hidden = chosen !== "restricted";
    warns.hidden = !(chosen === "all" || (chosen === "restricted" && everything.length > 1 && ticked.length === everything.length));
    says.textContent = {
      all: `This ${noun} can read and change everything.`,
      read_only: `This ${noun} can read everything, and change nothing.`,
      restricted: ticked.length ? `This ${noun} can ${ticked.join(", ")}.` : `This ${noun} can do nothing yet: tick what it may do.`,
    }[chosen] ?? `Choose what this ${noun} can do.`;
  };
  access.addEventListener("change", tell);
  tell();
}

// The day on which it expires, spelled out.
const expires = document.getElementById("expires");
if (expires) {
  const day = document.getElementById("expires_on"), says = document.getElementById("expires-says");
  const tell = () => {
    day.hidden = expires.value !== "on";
    const days = expires.value === "default" ? Number(expires.dataset.defaultDays) : Number.parseInt(expires.value, 10);
    const at = expires.value === "on" ? day.valueAsDate : days ? new Date(Date.now() + days * 864e5) : null;
    says.textContent = at ? `It stops working on ${at.toLocaleDateString("en-GB", { dateStyle: "long", timeZone: "UTC" })}.` : "";
  };
  expires.addEventListener("change", tell);
  day.addEventListener("input", tell);
  tell();
}

// The hours of a grace, where none of the times to choose from fits.
const grace = document.getElementById("grace");
if (grace) {
  const hours = document.getElementById("hours");
  const tell = () => { hours.hidden = grace.value !== "hours"; hours.required = !hours.hidden; };
  grace.addEventListener("change", tell);
  tell();
}

// On a narrow screen the menu is a line longer than the screen: where one is stands in sight.
document.querySelector(".menu [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// Links that open a dialog of the same page.
for (const link of document.querySelectorAll("[data-dialog]")) {
  const dialog = document.getElementById(link.dataset.dialog);
  link.addEventListener("click", (event) => { event.preventDefault(); dialog.showModal(); dialog.querySelector("input:not([type=hidden])").focus(); });
  dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
}

// A form that makes something is sent once; going back to it wakes its button again.
for (const form of document.querySelectorAll("form[data-once]")) {
  form.addEventListener("submit", () => setTimeout(() => { form.querySelector("[type=submit]").disabled = true; }));
}
addEventListener("pageshow", () => document.querySelectorAll("form[data-once] [type=submit]").forEach((one) => { one.disabled = false; }));

for (const button of document.querySelectorAll("[data-confirm]")) {
  button.addEventListener("click", (event) => { if (!confirm(button.dataset.confirm)) event.preventDefault(); });
}

// A one-time link: what it holds stands behind #, and no server has seen it on the way.
const link = document.querySelector("form[data-link]");
if (link && location.hash.length > 1) {
  link.elements.token.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  link.submit();
}

// A secret that is pasted into the search is reduced to its id, or to nothing where it is a secret alone, before anything is sent.
const search = document.querySelector("[data-search] #q");
if (search) {
  const whole = /\b([a-z][a-z0-9]{1,11}_[a-z]{2,8}_[km][0-9A-Za-z]{15})_[0-9A-Za-z]{38}/;
  const dotted = /\b([0-9A-Za-z]{8})\.[0-9A-Za-z]{32,38}\b/;
  const alone = /\b[a-z][a-z0-9]{1,11}sec_[0-9A-Za-z]{38}/;
  const said = document.createElement("div");
  said.setAttribute("role", "alert");
  search.form.after(said);
  search.addEventListener("input", () => {
    const found = search.value.match(whole) ?? search.value.match(dotted);
    if (!found && !alone.test(search.value)) return;
    search.value = found ? found[1] : "";
    said.className = "banner bad";
    said.textContent = `You pasted a secret: ${found ? "only its id was searched for" : "nothing of it was sent"}. If anybody else has seen it, rotate the key.`;
  });
}
