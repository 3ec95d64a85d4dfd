"""The page and the REST API, which only parse requests, call the library and respond."""
