"""The commands of the command line. Each imports what is heavy only when it runs, so that help is instant."""
