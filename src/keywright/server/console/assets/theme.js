// Before anything is drawn: the reader's own choice of light or dark.
const dark = matchMedia("(prefers-color-scheme: dark)");
const show = () => document.documentElement.classList.toggle("dark", dark.matches);
show();
dark.addEventListener("change", show);
