// Express and PostgreSQL.
import express from 'express';
import pg from 'pg';
import { Inbox, postgres } from 'zentra-inbox';

const pool = new pg.Pool({ connectionString: process.env.DATABASE });
const inbox = new Inbox({ secrets: [process.env.LEDGER_SIGNING], store: postgres(pool) });
await inbox.create();

// Without a body parser: the signature covers the raw bytes, also of a compressed body.
const app = express();
app.post('/webhooks', async (request, response) => {
  const { status, text } = await inbox.receive(request.headers, request, async (event, client) => {
    await client.query('INSERT INTO ledger (transfer) VALUES ($1)', [event.json().id]);
  });
  response.status(status).type('text').send(text);
});
app.listen(process.env.PORT, '127.0.0.1');
