// Errors on the page: the message in its box, and the form for the token if that is missing.

import { Refused } from "./api.js";

export const find = (id) => document.getElementById(id);

export function complain(error) {
  if (error.status === 401) {
    find("token-form").hidden = false;
    find("token").focus();
  }
  find("error-text").textContent = error instanceof Refused ? error.message : `This page failed: ${error.message}`;
  find("error").hidden = false;
}

export function calm() {
  find("error").hidden = true;
}
