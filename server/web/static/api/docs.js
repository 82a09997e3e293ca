// Swagger UI. "Try it out" sends requests of this page, so the browser's cookie is their credential.

addEventListener("DOMContentLoaded", () => {
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#api",
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout", // without the bar that loads other descriptions
    deepLinking: true,
    docExpansion: "none",
    filter: true,
    validatorUrl: null, // no other server checks the description
  });
});
