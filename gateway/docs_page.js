// What Swagger UI does otherwise on the documentation page; `exampleKey` is the document's Idempotency-Key.
const forHeika = (exampleKey) => {
  const freshKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

  const target = (spec, reference) =>
    reference
      .slice(2)
      .split("/")
      .map((key) => decodeURIComponent(key).replaceAll("~1", "/").replaceAll("~0", "~"))
      .reduce((held, key) => held?.[key], spec);

  // A copy with what its references lead to in their place, but for one that leads back to where it stands.
  const resolved = (spec, value, within) => {
    if (Array.isArray(value)) return value.map((item) => resolved(spec, item, within));
    if (value === null || typeof value !== "object") return value;
    const { $ref, ...others } = value;
    const beside = Object.fromEntries(Object.entries(others).map(([key, item]) => [key, resolved(spec, item, within)]));
    if (typeof $ref !== "string") return $ref === undefined ? beside : value;
    if (!$ref.startsWith("#/") || within.includes($ref)) return value;
    return { ...resolved(spec, target(spec, $ref), [...within, $ref]), ...beside };
  };

  return {
    // A key that every reader of the document shares would replay the first reader's answer.
    responseInterceptor: (answer) => {
      if (answer.url.endsWith("/openapi.json")) {
        answer.text = answer.text.replaceAll(exampleKey, freshKey());
      }
      return answer;
    },
    plugins: [
      () => ({
        fn: {
          // Its own way walks through the whole document at each operation that is opened, which takes seconds.
          resolveSubtree: async (spec, path) => ({
            spec: resolved(spec, path.reduce((held, key) => held?.[key], spec), []),
            errors: [],
          }),
        },
        statePlugins: {
          spec: {
            wrapActions: {
              // Another key once something was done under one: a second refund is not the first one told again.
              setResponse: (take, page) => (path, method, answer) => {
                take(path, method, answer);
                const given = page.specSelectors.parameterValues([path, method]).get("header.Idempotency-Key");
                const parameters = page.specSelectors.specJson().getIn(["paths", path, method, "parameters"]);
                if (given && answer.ok) {
                  const key = parameters.find((parameter) => parameter.get("name") === "Idempotency-Key");
                  page.specActions.changeParamByIdentity([path, method], key, freshKey(), false);
                }
              },
            },
          },
        },
      }),
    ],
  };
};
