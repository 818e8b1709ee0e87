// Types of the console's own objects. Those of the API are made from docs/openapi.json.

/** Who has signed in, what they may do, and where. */
interface Context {
  me: Api.Me;
  config: Api.Configuration;
  /** Whether the role can act. */
  acts: boolean;
  /** Whether a source is for production. */
  production: boolean;
}

/** An error of the API, or any other one. */
interface Failure extends Error {
  status?: number;
  code?: string;
}

/** What each page can have. */
interface Common {
  /** What the page failed to read. */
  error?: Failure | null;
  /** The result of the last action. */
  done?: unknown;
  /** Why the last action failed. */
  failed?: Failure | null;
}

/** One visit of a view: `S` is what it knows. */
interface Page<S = any> {
  id?: string;
  query: string;
  context: Context;
  signal: AbortSignal;
  actions: Record<string, (...given: any[]) => unknown>;
  state(): S & Common;
  update(change: Partial<S & Common> | ((now: S & Common) => Partial<S & Common>)): void;
}

/** A page of the console. */
interface View<S> {
  title: string;
  initial?: S & Common;
  start(page: Page<S>): void;
  render(now: S & Common, page: Page<S>): unknown;
}

// Newer than this TypeScript.
interface Array<T> {
  findLast(predicate: (value: T) => boolean): T | undefined;
}
