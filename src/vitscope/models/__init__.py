"""Subjects: adapters from upstream models to one anatomy, and the models of the project itself."""
