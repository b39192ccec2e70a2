"""Pages from templates: everything put in is escaped, and a name that is not there is an error."""

import jinja2


def open_templates(package: str) -> jinja2.Environment:
    """The templates in the folder `templates` of a package, for example "tapetum.report"."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
