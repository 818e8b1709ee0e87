/** A header object of Node's `http`, Express or Fastify, or a `Headers`. */
export type HeadersLike =
  | Record<string, string | string[] | undefined>
  | { get(name: string): string | null };

/** A verified event. */
export interface Event {
  /** Its key: the signed `webhook-id`, the same as Zentra's `idempotency-key`. */
  readonly key: string;
  /** Its type (`ce-type`). The signature does not cover it. */
  readonly type: string | undefined;
  /** The number of the delivery attempt, from 1. The signature does not cover it. */
  readonly attempt: number;
  readonly headers: HeadersLike;
  /** The provider's exact bytes. */
  readonly body: Buffer;
  /** The body as JSON. Throws a `SyntaxError` if it is none. */
  json(): unknown;
}

/** The answer to a request. */
export interface Answer {
  /** 200 done, 401 refused, 413 too large, 422 a permanent error of the handler, 500 another error. */
  readonly status: 200 | 401 | 413 | 422 | 500;
  readonly text: string;
}

/** Where keys are stored. `T` is what a handler writes by. */
export interface Store<T> {
  create(): Promise<unknown>;
  /** Runs `work` in a transaction that stores the key. Resolves to `false` if the key was stored before. */
  once(key: string, work: (transaction: T) => unknown): Promise<boolean>;
  /** Removes keys that are older. */
  forget(seconds: number): Promise<unknown>;
}

/** A request without a valid signature. */
export class Refused extends Error {
  constructor(reason: string);
  readonly reason: string;
}

/** Throw it from a handler if a retry cannot help: the answer is 422 with its message. */
export class Permanent extends Error {
  constructor(message: string);
}

/** Verifies requests by Standard Webhooks. */
export class Verifier {
  constructor(secrets: string[], options?: { tolerance?: number });
  /** The signed `webhook-id`. Throws {@link Refused}. `now`: seconds since 1970. */
  verify(headers: HeadersLike, body: Uint8Array | string, now?: number): string;
}

export interface InboxOptions<T> {
  /** Signing secrets, `whsec_…`. Each one verifies, so that they can be rotated. */
  secrets: string[];
  store: Store<T>;
  /** How long keys are kept (default 60): longer than the sender can send an event again. */
  retentionDays?: number;
  /** How long a signature is valid, in seconds (default 300). */
  tolerance?: number;
  /** Maximum size of a body that is read from a stream, in bytes (default 1 MiB). */
  maxBody?: number;
  /** Receives what a handler or the database throws (default: `console.error`). */
  onError?: (error: unknown) => void;
}

export class Inbox<T> {
  constructor(options: InboxOptions<T>);
  /** Creates the table `zentra_inbox`, if it does not exist. */
  create(): Promise<void>;
  /** Receives one request. `body`: its raw bytes, or a stream of them, such as the request itself. Never rejects. */
  receive(
    headers: HeadersLike,
    body: Uint8Array | string | AsyncIterable<Uint8Array>,
    handler: (event: Event, transaction: T) => unknown,
  ): Promise<Answer>;
  /** Removes keys older than the retention. Runs by itself once an hour. */
  forget(): Promise<void>;
}

/** PostgreSQL: a `Pool` of `pg`. */
export function postgres<C extends PostgresClient>(pool: {
  query(text: string, values?: unknown[]): Promise<unknown>;
  connect(): Promise<C>;
}): Store<C>;

/** A client of `pg`. */
export interface PostgresClient {
  query(text: string, values?: any[]): Promise<any>;
  release(broken?: boolean): void;
}

/** MySQL and MariaDB: a pool of `mysql2/promise`. */
export function mysql<C extends MysqlConnection>(pool: {
  query(sql: string, values?: any): Promise<unknown>;
  getConnection(): Promise<C>;
}): Store<C>;

/** A connection of `mysql2/promise`. */
export interface MysqlConnection {
  query(sql: string, values?: any): Promise<any>;
  beginTransaction(): Promise<void>;
  commit(): Promise<void>;
  rollback(): Promise<void>;
  release(): void;
  destroy(): void;
}

/** SQLite: a `Database` of `better-sqlite3` that nothing else writes by. */
export function sqlite<D extends SqliteDatabase>(database: D): Store<D>;

/** A `Database` of `better-sqlite3`. */
export interface SqliteDatabase {
  exec(sql: string): unknown;
  prepare(sql: string): any;
  readonly inTransaction: boolean;
}
