"""`python -m charlstm` is the program `charlstm`."""

from charlstm.cli import main

main()
