// Runs a template in the workflow engine of Backstage, as the backend does:
//
//   node --no-node-snapshot engine.cjs PACKAGES BACKEND TEMPLATE.YAML OUTPUT
//
// PACKAGES is the folder whose node_modules contains BACKEND, a name of the package
// @backstage/plugin-scaffolder-backend. Each input line is JSON with the parameters of a form. Each
// output line is JSON with the result of the task. OUTPUT/n contains the files that Backstage would
// push to the repository of the nth task.

'use strict';

const fs = require('node:fs/promises');
const { createRequire } = require('node:module');
const path = require('node:path');
const { createInterface } = require('node:readline');

const [packages, backendName, templatePath, outputPath] = process.argv.slice(2);
const installed = createRequire(path.resolve(packages, 'package.json'));
const manifest = installed.resolve(`${backendName}/package.json`);
// Each backend uses the versions of the packages that it requires.
const backendRequire = createRequire(manifest);

const { ConfigReader } = backendRequire('@backstage/config');
const { ScmIntegrations } = backendRequire('@backstage/integration');
const jsonschema = backendRequire('jsonschema');
const yaml = backendRequire('yaml');

// The package does not export these classes, so load them from their files.
const internal = (file) => backendRequire(path.join(path.dirname(manifest), 'dist/scaffolder', file));
const { NunjucksWorkflowRunner } = internal('tasks/NunjucksWorkflowRunner.cjs.js');
const { createFetchTemplateAction } = internal('actions/builtin/fetch/template.cjs.js');
const { createCatalogRegisterAction } = internal('actions/builtin/catalog/register.cjs.js');

/** Return the action of a backend module, or undefined if the module is not installed. */
function actionOf(module, create, options) {
  try {
    return installed(`@backstage/plugin-scaffolder-backend-module-${module}`)[create](options);
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') {
      throw error;
    }
    return undefined;
  }
}

const config = new ConfigReader({});
const integrations = ScmIntegrations.fromConfig(config);
const messages = [];
const write = (message) => void messages.push(String(message));
const logger = { debug: write, error: write, info: write, warn: write, child: () => logger };
const nothing = { add() {}, record() {} };
const metrics = { createCounter: () => nothing, createHistogram: () => nothing };
// Backstage needs a reader only for URLs. It reads the folder of a local template itself.
const fetching = { integrations, reader: undefined };
const fetchActions = [
  createFetchTemplateAction(fetching),
  actionOf('cookiecutter', 'createFetchCookiecutterAction', fetching),
].filter(Boolean);
const publishActions = [
  { id: 'publish:github', ...actionOf('github', 'createPublishGithubAction', { config, integrations }) },
  { id: 'publish:gitlab', ...actionOf('gitlab', 'createPublishGitlabAction', { config, integrations }) },
];

// The publish actions would call GitHub or GitLab, so replace their handlers. If the module of an
// action is installed, its schema still checks the input. The catalog reads the files in OUTPUT.
function publish(action, repository) {
  const contents = `https://${action.id.split(':')[1]}.com/bookstore/bookstore`;
  return {
    ...action,
    async handler(context) {
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
  // The backend checks the parameters in the same way before it starts a task.
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
    ...fetchActions,
    ...publishActions.map((action) => publish(action, repository)),
    createCatalogRegisterAction({ catalog: catalogOf(repository, registered), integrations }),
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
