// Runs template.yaml in Backstage's own workflow engine: node engine.cjs TEMPLATE.YAML OUTPUT
//
// A line of JSON in, the parameters that a form has sent; a line out, what the task has said.
// What would have been pushed to the repository of the nth task is in OUTPUT/n.

'use strict';

const fs = require('node:fs/promises');
const path = require('node:path');
const { createInterface } = require('node:readline');

const { ConfigReader } = require('@backstage/config');
const { ScmIntegrations } = require('@backstage/integration');
const backend = require('@backstage/plugin-scaffolder-backend');
const { createFetchCookiecutterAction } = require('@backstage/plugin-scaffolder-backend-module-cookiecutter');
const { createPublishGithubAction } = require('@backstage/plugin-scaffolder-backend-module-github');
const jsonschema = require('jsonschema');
const yaml = require('yaml');

// The package keeps its engine to itself, so it is taken by its file.
const home = path.dirname(require.resolve('@backstage/plugin-scaffolder-backend/package.json'));
const engine = path.join(home, 'dist/scaffolder/tasks/NunjucksWorkflowRunner.cjs.js');
const { NunjucksWorkflowRunner } = require(engine);

const [templatePath, outputPath] = process.argv.slice(2).map((name) => path.resolve(name));

const config = new ConfigReader({});
const integrations = ScmIntegrations.fromConfig(config);
const messages = [];
const write = (message) => void messages.push(String(message));
const logger = { debug: write, error: write, info: write, warn: write, child: () => logger };
const nothing = { add() {}, record() {} };
const metrics = { createCounter: () => nothing, createHistogram: () => nothing };

// The two that reach out of this machine: GitHub, of which the action's own schema stays to
// judge the input, and the catalog, which reads what "GitHub" holds.
function publish(repository) {
  return {
    ...createPublishGithubAction({ config, integrations }),
    async handler(context) {
      const contents = 'https://github.com/bookstore/bookstore';
      await fs.cp(context.workspacePath, repository, { recursive: true });
      context.output('remoteUrl', `${contents}.git`);
      context.output('repoContentsUrl', `${contents}/blob/main`);
    },
  };
}

function catalogOf(repository, registered) {
  return {
    async addLocation({ target, dryRun }) {
      if (!dryRun) {
        registered.push(target);
      }
      const name = path.join(repository, path.basename(new URL(target).pathname));
      const entities = yaml.parseAllDocuments(await fs.readFile(name, 'utf8'));
      return { entities: entities.map((document) => document.toJS()) };
    },
  };
}

async function run(entity, parameters, name) {
  // As the backend does with what it is sent, before it starts a task.
  for (const page of entity.spec.parameters) {
    const { errors } = jsonschema.validate(parameters, page);
    if (errors.length > 0) {
      throw new Error(errors.join('\n'));
    }
  }
  const repository = path.join(outputPath, name);
  const registered = [];
  const credentials = { principal: { type: 'none' } };
  const actions = [
    createFetchCookiecutterAction({ integrations }),
    publish(repository),
    backend.createCatalogRegisterAction({
      catalog: catalogOf(repository, registered),
      integrations,
    }),
  ];
  const actionRegistry = {
    async get(id) {
      return actions.find((action) => action.id === id);
    },
  };
  const runner = new NunjucksWorkflowRunner({
    actionRegistry,
    config,
    integrations,
    logger,
    metrics,
    workingDirectory: path.join(outputPath, 'work'),
  });
  const { output } = await runner.execute({
    spec: {
      apiVersion: entity.apiVersion,
      steps: entity.spec.steps,
      output: entity.spec.output,
      parameters,
      user: {},
      templateInfo: { entityRef: 'template:default/cookiecutter-logto', baseUrl: `file://${templatePath}` },
    },
    secrets: {},
    taskId: name,
    cancelSignal: new AbortController().signal,
    getInitiatorCredentials: async () => credentials,
    getWorkspaceName: async () => name,
    emitLog: async (message) => write(message),
  });
  return { output, registered };
}

async function main() {
  const entity = yaml.parse(await fs.readFile(templatePath, 'utf8'));
  let task = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    messages.length = 0;
    const name = String(task++);
    try {
      console.log(JSON.stringify(await run(entity, JSON.parse(line), name)));
    } catch (error) {
      console.log(JSON.stringify({ error: `${error.stack}\n${messages.join('\n')}` }));
    }
  }
}

main();
