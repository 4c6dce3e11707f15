// The validators of Backstage for tests. Reads a question as a line of JSON, writes a line of JSON:
//
//   {"entity": {...}}             the faults of a catalog entity, or of a template
//   {"schema": {...}, "values"}   for each value, the errors in the form and in the backend

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

// The form of Backstage uses these options: ajv-errors needs allErrors, and the properties of a
// form (enumNames, ui:...) are not keywords of JSON Schema, so strict is off.
const ajv = ajvErrors(new Ajv({ allErrors: true, strict: false }));

function judge(schema, values) {
  const form = ajv.compile(schema);
  return values.map((value) => ({
    form: form(value) ? [] : form.errors.map((error) => error.message),
    backend: jsonschema.validate(value, schema).errors.map((error) => error.stack),
  }));
}

for await (const line of createInterface({ input: process.stdin })) {
  const { entity, schema, values } = JSON.parse(line);
  const response = entity ? await entityFaults(entity) : judge(schema, values);
  console.log(JSON.stringify(response));
}
