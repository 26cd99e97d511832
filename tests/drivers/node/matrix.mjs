// What a Node program does in a day, through one connection.
//
// Usage: node matrix.mjs MODULES. What each line must say is in tests/it/drivers.rs.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const modules = process.argv[2];
const require = createRequire(`${modules}/`);
const options = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  database: "shop",
  ssl: { ca: readFileSync(process.env.HOLDPOINT_CA), servername: "localhost" },
};
const say = (...words) => console.log(words.join(" "));

async function pg() {
  const { Client } = require("pg");
  const client = new Client({ ...options, user: "agent", password: process.env.PGPASSWORD });
  await client.connect();
  const value = async (query) => (await client.query({ rowMode: "array", ...query })).rows[0][0];
  const failing = async (sql) => client.query(sql).then(() => "none", (error) => error.code);

  say("rows", (await client.query("SELECT id FROM invoices")).rows.length);
  const add = { name: "add", text: "SELECT $1::int + 10" };
  say("prepared", await value({ ...add, values: [2] }), await value({ ...add, values: [5] }));
  await client.query("BEGIN");
  await client.query("INSERT INTO scratch VALUES ($1)", [1]);
  await client.query("COMMIT");
  await client.query("BEGIN");
  await client.query("INSERT INTO scratch VALUES ($1)", [2]);
  await client.query("ROLLBACK");
  say("scratch", await value({ text: "SELECT count(*) FROM scratch" }));
  await client.query("BEGIN");
  say("error", await failing("SELECT 1 / 0"));
  await client.query("ROLLBACK");
  const large = await client.query("SELECT repeat('x', 1000) AS x FROM generate_series(1, 5000)");
  say("large", large.rows.reduce((sum, row) => sum + row.x.length, 0));
  const held = await client.query("UPDATE invoices SET amount = amount + $1 WHERE id = 1", [5]);
  say("held", held.rowCount);
  say("denied", await failing("DELETE FROM victims"));
  await client.query("BEGIN");
  say("denied inside", await failing("DELETE FROM victims"));
  await client.query("ROLLBACK");
  await client.query("BEGIN");
  await client.query("INSERT INTO scratch VALUES ($1)", [3]);
  await failing("DELETE FROM victims");
  await client.query("COMMIT");
  say("given up", await value({ text: "SELECT count(*) FROM scratch" }));
  say("usable", await value({ text: "SELECT 7" }));
  // It reads binary results by way of UTF-8, so bytes are asked for as text.
  const data = await value({ text: "SELECT $1::bytea", values: [Buffer.from("00ff7f", "hex")] });
  const big = { text: "SELECT $1::int8 AS n", values: ["9007199254740993"], binary: true };
  say("binary", data.toString("hex"), (await client.query(big)).rows[0].n);
  await client.end();
}

await pg();
