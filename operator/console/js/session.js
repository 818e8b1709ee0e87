// The token of this tab. It is in sessionStorage: it ends with the tab, and is in no cookie.

const KEY = 'zentra.token';

export function token() {
  return sessionStorage.getItem(KEY);
}

/** Ends the session in this tab. The token itself stays valid until it expires or is revoked. */
export function signOut() {
  sessionStorage.removeItem(KEY);
}

/** Returns whether the text can be a token. */
export function signInWith(text) {
  const token = text.trim();
  const isOne = /^[\x21-\x7e]+$/.test(token);
  if (isOne) sessionStorage.setItem(KEY, token);
  return isOne;
}

/** Exchanges the code of a link (`#code=…`) for a token. Returns an error message, or null. */
export async function signInByLink() {
  const code = /^#code=([\w-]+)$/.exec(location.hash)?.[1];
  if (!code) return null;
  // The link is used up: it must not stay in the address or in the browser's history.
  history.replaceState(null, '', location.pathname);
  try {
    const response = await fetch('console/sign-in', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ code }),
    });
    const answer = await response.json();
    if (!response.ok) return answer.detail ?? 'The sign-in failed.';
    signInWith(answer.token);
    return null;
  } catch {
    return 'The server does not answer.';
  }
}
