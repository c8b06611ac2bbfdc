/** Light, dark, or as the system is. */

export type Theme = "system" | "light" | "dark";
const KEY = "trine-theme";

function kept(): Theme {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === "light" || theme === "dark" ? theme : "system";
  } catch {
    return "system";
  }
}

class Themes {
  now = $state<Theme>(kept());

  constructor() {
    this.#show();
  }

  set(theme: Theme) {
    this.now = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // It is not kept, then.
    }
    this.#show();
  }

  /** The next one, for a button. */
  turn() {
    this.set(this.now === "system" ? "dark" : this.now === "dark" ? "light" : "system");
  }

  #show() {
    if (this.now === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = this.now;
  }
}

export const theme = new Themes();
