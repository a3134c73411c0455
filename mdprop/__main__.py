from mdprop.cli import main

main()
