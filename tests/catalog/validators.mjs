// Backstage's own validators, for a test to ask: a line of JSON in, a line of JSON out.
//
//   {"entity": {...}}             the faults of a catalog entity, or of a template
//   {"schema": {...}, "values"}   for each value, what the form says and what the backend says

import { createInterface } from 'node:readline';

import * as model from '@backstage/catalog-model';
import { templateEntityV1beta3Validator } from '@backstage/plugin-scaffolder-common';
import Ajv from 'ajv';
import ajvErrors from 'ajv-errors';
import jsonschema from 'jsonschema';

const KINDS = {
  API: model.apiEntityV1alpha1Validator,
  Component: model.componentEntityV1alpha1Validator,
  Resource: model.resourceEntityV1alpha1Validator,
  Template: templateEntityV1beta3Validator,
};

const policy = model.EntityPolicies.allOf([
  new model.SchemaValidEntityPolicy(),
  new model.DefaultNamespaceEntityPolicy(),
  new model.NoForeignRootFieldsEntityPolicy(),
  new model.FieldFormatEntityPolicy(),
]);

async function entityFaults(entity) {
  try {
    await policy.enforce(entity);
    const known = await KINDS[entity.kind]?.check(entity);
    return known ? [] : [`there is no validator for ${entity.apiVersion} ${entity.kind}`];
  } catch (error) {
    return [error.message];
  }
}

// The form of Backstage sets ajv up in this way: allErrors for ajv-errors, and not strict,
// since the properties of a form (enumNames, ui:...) are no keywords of JSON Schema.
const ajv = ajvErrors(new Ajv({ allErrors: true, strict: false }));

function judged(schema, values) {
  const form = ajv.compile(schema);
  return values.map((value) => ({
    form: form(value) ? [] : form.errors.map((error) => error.message),
    backend: jsonschema.validate(value, schema).errors.map((error) => error.stack),
  }));
}

for await (const line of createInterface({ input: process.stdin })) {
  const { entity, schema, values } = JSON.parse(line);
  const answer = entity ? await entityFaults(entity) : judged(schema, values);
  console.log(JSON.stringify(answer));
}
