// Node's own server and SQLite.
import { createServer } from 'node:http';
import Database from 'better-sqlite3';
import { Inbox, sqlite } from 'zentra-inbox';

const store = sqlite(new Database(process.env.DATABASE));
const inbox = new Inbox({ secrets: [process.env.LEDGER_SIGNING], store });
await inbox.create();

createServer(async (request, response) => {
  const { status, text } = await inbox.receive(request.headers, request, (event, database) => {
    database.prepare('INSERT INTO ledger (transfer) VALUES (?)').run(event.json().id);
  });
  response.writeHead(status, { 'content-type': 'text/plain' }).end(text);
}).listen(process.env.PORT, '127.0.0.1');
