// The story of tests/clients, told by AWS's SDK for JavaScript as it is published. What it is given and what it prints: ../README.md.
import { readFileSync } from "node:fs";
import https from "node:https";
import { randomUUID } from "node:crypto";
import {
  LambdaMicrovmsClient, LambdaMicrovmsServiceException,
  CreateMicrovmImageCommand, GetMicrovmImageCommand, DeleteMicrovmImageCommand, DeleteMicrovmImageVersionCommand, paginateListMicrovmImages,
  RunMicrovmCommand, GetMicrovmCommand, SuspendMicrovmCommand, ResumeMicrovmCommand, TerminateMicrovmCommand, CreateMicrovmAuthTokenCommand,
} from "@aws-sdk/client-lambda-microvms";

const POLL_MS = 100, PATIENCE_MS = 300_000;
const { STORY_BASE, STORY_ROLE, STORY_URI, EMBERBOX_CA } = process.env;
const client = new LambdaMicrovmsClient({ maxAttempts: 1 }); // Endpoint, keys and region from the environment, as anyone's.
const send = (Command, input) => client.send(new Command(input));
const name = `javascript-${randomUUID().slice(0, 8)}`;
const report = { errors: {} };

async function refused(call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof LambdaMicrovmsServiceException)) throw error;
    const { resourceType, resourceId } = error;
    return { name: error.name, status: error.$metadata.httpStatusCode, message: error.message, fault: error.$fault, request: Boolean(error.$metadata.requestId), resourceType, resourceId };
  }
  throw new Error("was not refused");
}

async function until(states, look) {
  for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await new Promise((done) => setTimeout(done, POLL_MS))) {
    const { state } = await look();
    if (states.includes(state)) return state;
  }
  throw new Error(`never ${states}`);
}

function get(endpoint, headers) {
  return new Promise((resolve, reject) => {
    const request = https.request(`https://${endpoint}/`, { headers, ca: readFileSync(EMBERBOX_CA) }, (answer) => {
      let body = "";
      answer.on("data", (part) => (body += part)).on("end", () => resolve({ status: answer.statusCode, body: JSON.parse(body) }));
    });
    request.on("error", reject).end();
  });
}

const definition = { baseImageArn: STORY_BASE, buildRoleArn: STORY_ROLE, codeArtifact: { uri: STORY_URI }, resources: [{ minimumMemoryInMiB: 512 }] };
report.errors.validation = await refused(() => send(CreateMicrovmImageCommand, { ...definition, name: "no such name!" }));
const created = await send(CreateMicrovmImageCommand, { ...definition, name });
const imageIdentifier = created.imageArn;
report.created_at_is_a_date = created.createdAt instanceof Date && Math.abs(created.createdAt - Date.now()) < 600_000;
report.built = await until(["CREATED", "CREATE_FAILED"], () => send(GetMicrovmImageCommand, { imageIdentifier }));

const sizes = [], names = [];
for await (const page of paginateListMicrovmImages({ client, pageSize: 1 }, {})) {
  sizes.push(page.items.length);
  names.push(...page.items.map((item) => item.name));
}
report.pages = { largest: Math.max(...sizes), listed: names.filter((other) => other === name).length };

const microvm = await send(RunMicrovmCommand, { imageIdentifier });
const microvmIdentifier = microvm.microvmId;
const state = (...states) => until(states, () => send(GetMicrovmCommand, { microvmIdentifier }));
report.run = microvm.state;
report.running = await state("RUNNING", "TERMINATED");
const { authToken } = await send(CreateMicrovmAuthTokenCommand, { microvmIdentifier, expirationInMinutes: 5, allowedPorts: [{ port: 8080 }] });
report.answer = await get(microvm.endpoint, authToken);
await send(SuspendMicrovmCommand, { microvmIdentifier });
report.suspended = await state("SUSPENDED", "TERMINATED");
await send(ResumeMicrovmCommand, { microvmIdentifier });
report.resumed = await state("RUNNING", "TERMINATED");
await send(TerminateMicrovmCommand, { microvmIdentifier });
report.terminated = await state("TERMINATED");
report.errors.terminated = await refused(() => send(SuspendMicrovmCommand, { microvmIdentifier }));
report.errors.last_version = await refused(() => send(DeleteMicrovmImageVersionCommand, { imageIdentifier, imageVersion: "1.0" }));
report.deleted = (await send(DeleteMicrovmImageCommand, { imageIdentifier })).state;
report.errors.not_found = await refused(async () => { for (;;) await send(GetMicrovmImageCommand, { imageIdentifier }); });
console.log(JSON.stringify({ ...report, image: imageIdentifier, microvm: microvmIdentifier }));
