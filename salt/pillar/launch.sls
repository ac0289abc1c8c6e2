#!yaml
{}
